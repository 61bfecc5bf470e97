"""The proof of training: what moved is compared with what the stage planned, and a mismatch
stops the run.

Freezing without effect, parameters that no optimizer group holds and rates that are never set
all leave a plausible loss curve. The bits of the weights show them: every weight is
fingerprinted before the first step, and again later.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from sailvit.core.errors import ProofError
from sailvit.core.recipe import PARTS, Part, TrainConfig
from sailvit.distributed.processes import as_one, rank
from sailvit.distributed.sharding import whole
from sailvit.models.languages.adapters import without_gradient
from sailvit.training.optim.optimizer import planned_shares
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord

AS_PLANNED = "as planned"
"""Verdict of a part that did what it should."""

_VISIBLE = 1e-6
"""Learning rate from which a step changes float32 weights around 1, which are 6e-8 to 1.2e-7
apart: AdamW moves a weight by about the rate."""

_CHUNK = 1 << 22
"""Elements fingerprinted at a time, which limits the temporary int64 copies to 64 MiB."""


@dataclass
class Evidence:
    """What the proof of training has seen of a stage; kept in checkpoints, so that a stage is
    proved as a whole.
    """

    before: dict[str, dict[str, str]] = field(default_factory=dict)
    """Fingerprint of every weight when the stage began, by part and name."""
    images: int = 0
    """Tiles seen so far."""
    highest: dict[str, float] = field(default_factory=dict)
    """Highest learning rate applied so far, by part."""
    astray: dict[str, str] = field(default_factory=dict)
    """By part, the first learning rate that was not the planned one, as a sentence."""
    proved: bool = False
    """Whether the proof after the first steps was made."""
    closed: list[str] = field(default_factory=list)
    """Adapters' first matrices in the language whose second has been all zeros since the stage
    began, so that the next gradient of theirs is exactly zero."""
    still: list[str] = field(default_factory=list)
    """Those whose gradient was exactly zero in every step so far, for that reason."""


@dataclass(frozen=True)
class ProofRow:
    """What one part did, in numbers of parameters."""

    part: Part
    """Tower, connector or language."""
    planned: int
    """Parameters that the stage plans to train."""
    in_optimizer: int
    """Parameters of the part that are in exactly one optimizer group."""
    moved: int
    """Planned parameters in tensors whose bits changed."""
    waiting: int
    """Planned parameters that did not move because they could not yet: the first matrices of
    adapters, as long as the second ones are the zeros that they begin as, and tensors whose
    rates are too small for float32 numbers of their size."""
    frozen: int
    """Parameters that the stage plans to keep as they are."""
    frozen_identical: int
    """Frozen parameters in tensors whose every bit is the same."""
    lr: float
    """Highest learning rate applied so far."""
    verdict: str
    """`as planned`, or what went wrong."""


def fingerprint(tensor: torch.Tensor) -> str:
    """Two sums over a float32 tensor's bits, plain and weighted by position; equal bits give
    equal sums.
    """
    # Bits, not values: NaN equals nothing, and 0.0 equals -0.0.
    bits = whole(tensor).contiguous().flatten().view(torch.int32)
    plain = weighted = 0
    for start in range(0, len(bits), _CHUNK):
        chunk = bits[start : start + _CHUNK].long()
        # By position, so that exchanged values show; int64 sums wrap around, which does no
        # harm.
        weights = torch.arange(start, start + len(chunk), device=bits.device) % 8191 + 1
        plain += int(chunk.sum())
        weighted += int((chunk * weights).sum())
    return f"{plain:x}/{weighted:x}"


def fingerprints(run: StageRun) -> dict[str, dict[str, str]]:
    """A fingerprint of every tensor of every part."""
    return {
        part: {n: fingerprint(p) for n, p in run.model.part(part).named_parameters()}
        for part in PARTS
    }


class ProofCallback(Callback):
    """Proves a stage after its first steps and at its end; raises ProofError when a part did
    not do what was planned.
    """

    def __init__(self, announce: Callable[[dict[str, Any]], None] = lambda line: None) -> None:
        """`announce` is given every line that is written to proofs.jsonl, before a mismatch
        stops the run.
        """
        self._announce = announce
        self._evidence = Evidence()

    _planned: dict[Part, set[str]]
    _shares: dict[int, float]
    _done: float

    def stage_started(self, run: StageRun) -> None:
        """Note what should train, and fingerprint every weight unless a resumed stage has the
        fingerprints already.
        """
        frozen, self._planned = TrainConfig(lr=0.0), {}
        self._shares = {
            id(p): 1.0 for objective in run.objectives.values() for p in objective.parameters()
        }
        for part in PARTS:
            shares = planned_shares(run.model, part, run.stage.train.get(part, frozen))
            self._planned[part] = set(shares)
            self._shares |= {
                id(p): shares[n] for n, p in run.model.part(part).named_parameters() if n in shares
            }
        self._done = run.share_done(run.samples, run.tokens)
        if not run.step or not self._evidence.before:
            closed = without_gradient(run.model.language, self._planned["language"])
            self._evidence = Evidence(before=fingerprints(run), closed=closed)

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """Check the rates; prove once enough steps have passed for what trains to have moved."""
        self._check_rates(run)
        self._evidence.images += record.images
        self._evidence.still = self._evidence.closed
        if self._evidence.closed:
            self._evidence.closed = without_gradient(run.model.language, self._evidence.closed)
        if (
            not self._evidence.proved
            and run.step >= run.recipe.proof_steps
            and self._would_show(run)
        ):
            self._evidence.proved = True
            self._prove(run, "first steps")

    def stage_ended(self, run: StageRun) -> None:
        """Prove the whole stage; one that was stopped is proved when it is done."""
        if run.step and not run.stop:
            self._prove(run, "end")

    def state_dict(self) -> dict[str, Any]:
        """The evidence, so that a stage is proved as a whole however often it was resumed."""
        evidence = self._evidence
        known: dict[str, Any] = {"highest": dict(evidence.highest)}
        known |= {"astray": dict(evidence.astray), "closed": [*evidence.closed]}
        return {**vars(evidence), **known}

    def load_state_dict(
        self, run: StageRun, state: dict[str, Any], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        """Go on with the evidence of before."""
        del run, tensors
        self._evidence = Evidence(**state)

    def _would_show(self, run: StageRun) -> bool:
        """Whether all that trains must have moved by now: an image was there, if tower or
        connector train, and warm-up has raised the rates far enough.

        A rate that is not the planned one is no reason to wait.
        """
        evidence, peak = self._evidence, run.stage.optim.lr
        groups = run.optimizer.param_groups
        top = {
            part: max(g["share"] for g in groups if g["part"] == part) for part in evidence.highest
        }
        # The rates of a part's layers keep their ratios, so the highest gives the others.
        reached = [
            (g["share"], g["share"] / top[g["part"]] * evidence.highest[g["part"]])
            for g in groups
            if g["share"]
        ]
        risen = all(highest >= min(_VISIBLE, share * peak / 2) for share, highest in reached)
        needs_image = bool(self._planned["tower"] or self._planned["connector"])
        return (evidence.images > 0 or not needs_image) and (risen or bool(evidence.astray))

    def _check_rates(self, run: StageRun) -> None:
        """Compare every group's rate with the schedule, computed from the recipe alone."""
        evidence = self._evidence
        before, self._done = self._done, run.share_done(run.samples, run.tokens)
        full = run.rate((before + self._done) / 2)
        for group in run.optimizer.param_groups:
            part, found = group["part"], group["lr"]
            evidence.highest[part] = max(evidence.highest.get(part, 0.0), found)
            for share in {self._shares[id(p)] for p in group["params"] if id(p) in self._shares}:
                if not math.isclose(found, full * share, rel_tol=1e-6, abs_tol=1e-15):
                    said = (
                        f"learning rate {found:g} at step {run.step}; planned is {full * share:g}"
                    )
                    evidence.astray.setdefault(part, said)

    def _prove(self, run: StageRun, when: str) -> None:
        now = fingerprints(run)
        changed = {part: self._changed(part, now[part]) for part in PARTS}
        small = {part: self._too_small(run, part, changed[part]) for part in PARTS}
        rows = [self._row(run, part, changed[part], small[part].keys()) for part in PARTS]
        wrong = [row for row in rows if row.verdict != AS_PLANNED]
        line: dict[str, Any] = {
            "stage": run.stage.name,
            "stage_index": run.index,
            "step": run.step,
            "when": when,
            "ok": not wrong,
        }
        line["rows"] = [dataclasses.asdict(row) for row in rows]
        if rank() == 0:
            run.journal.write(run.folder.proofs, line)
        self._announce(line)
        for note in _small_notes(small):
            self._announce({"note": note})
        with as_one():
            if wrong:
                raise ProofError(
                    f"stage {run.stage.name}, step {run.step}: training did not do what the recipe plans."
                    + "".join(f"\n  {row.part}: {row.verdict}" for row in wrong)
                    + f"\nThe run is stopped; {run.folder.path} holds what was saved before."
                )

    def _changed(self, part: Part, now: dict[str, str]) -> set[str]:
        before = self._evidence.before[part]
        return {name for name, bits in now.items() if bits != before[name]}

    def _row(
        self, run: StageRun, part: Part, changed: set[str], small: Collection[str]
    ) -> ProofRow:
        sizes = {name: p.numel() for name, p in run.model.part(part).named_parameters()}
        planned, held = self._planned[part], self._held(run, part)
        waiting = (self._without_gradient(part) | set(small)) - changed
        row = ProofRow(
            part=part,
            planned=sum(sizes[name] for name in planned),
            in_optimizer=sum(sizes[name] for name, times in held.items() if times == 1),
            moved=sum(sizes[name] for name in planned & changed),
            waiting=sum(sizes[name] for name in waiting),
            frozen=sum(size for name, size in sizes.items() if name not in planned),
            frozen_identical=sum(
                size for name, size in sizes.items() if name not in planned | changed
            ),
            lr=self._evidence.highest.get(part, 0.0),
            verdict=AS_PLANNED,
        )
        return dataclasses.replace(row, verdict=self._verdict(part, changed, waiting, held))

    def _held(self, run: StageRun, part: Part) -> dict[str, int]:
        """How many times the optimizer's groups hold each parameter of `part`; parameters that
        none holds are left out.
        """
        slots = Counter(id(p) for group in run.optimizer.param_groups for p in group["params"])
        counts = {name: slots[id(p)] for name, p in run.model.part(part).named_parameters()}
        return {name: count for name, count in counts.items() if count}

    def _without_gradient(self, part: Part) -> set[str]:
        """Planned weights that no gradient has reached so far, as it should be."""
        return set(self._evidence.still) & self._planned[part] if part == "language" else set()

    def _too_small(self, run: StageRun, part: Part, changed: set[str]) -> dict[str, float]:
        """The highest rate so far of every planned tensor that stood still and, at that rate, may
        well do so.
        """
        parameters = dict(run.model.part(part).named_parameters())
        shares = {name: self._shares.get(id(parameters[name])) for name in self._planned[part]}
        # A tensor that was exchanged since the stage began has no planned share.
        known = {name: share for name, share in shares.items() if share is not None}
        unit = self._evidence.highest.get(part, 0.0) / max(known.values(), default=1.0)
        rates = {name: unit * known[name] for name in sorted(known.keys() - changed)}
        # Sharded tensors are gathered, so every process has to ask for the same ones in turn.
        return {n: rate for n, rate in rates.items() if rate < _spacing(parameters[n])}

    def _verdict(
        self, part: Part, changed: set[str], waiting: set[str], held: dict[str, int]
    ) -> str:
        # Causes before symptoms: a weight that no group holds does not move either.
        planned, evidence = self._planned[part], self._evidence
        if lacking := sorted(planned - held.keys()):
            return f"{_some(lacking)} should train but no optimizer group holds {_them(lacking)}"
        if extra := sorted(held.keys() - planned):
            return f"{_some(extra)} should be frozen but an optimizer group holds {_them(extra)}"
        if doubled := sorted(name for name, count in held.items() if count > 1):
            return f"{_some(doubled)} in more than one optimizer group"
        if thawed := sorted(changed - planned):
            return f"{_some(thawed)} should be frozen but changed"
        if part in evidence.astray:
            return evidence.astray[part]
        if still := sorted(planned - changed - waiting):
            why = (
                ""
                if evidence.images or part == "language"
                else " (no sample of this stage had an image)"
            )
            return f"{_some(still)} should train but did not move{why}"
        return AS_PLANNED


def _spacing(tensor: torch.Tensor) -> float:
    """Distance from the smallest of a tensor's values, by size, to the next smaller float32.

    A step of half of it rounds to nothing. AdamW's steps are mostly less than half the rate, so
    that at a rate below this distance a sound training may change no bit. Zeros have none.
    """
    least = whole(tensor).abs().min()
    return float(least - torch.nextafter(least, torch.zeros_like(least)))


def _small_notes(small: Mapping[Part, Mapping[str, float]]) -> list[str]:
    return [
        f"{part}: {_some(sorted(rates))} could not move: at a rate of {max(rates.values()):.1e} or less, steps"
        " are too small for float32 numbers of their size; raise the rate where they should train"
        for part, rates in small.items()
        if rates
    ]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({shown}{', ...' if len(names) > 3 else ''})"


def _them(names: list[str]) -> str:
    return "them" if len(names) > 1 else "it"
