"""The choice of how packs are read: of all ways, fastest first, the first without a fault."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from sailvit.core.errors import ModelError
from sailvit.core.recipe import Packing
from sailvit.distributed.processes import gather_objects
from sailvit.models.guards.untouched import untouched
from sailvit.models.packing.attention import PACKED, ROWS, register_attention
from sailvit.models.packing.proof import (
    FAULTS,
    PackingErrors,
    draw_tokens,
    measure,
    measure_behind,
    proof_lengths,
    read_alone,
    segments_of,
)
from sailvit.models.packing.ways import PACKED_WAY, Way, exchangeable, use_attention

if TYPE_CHECKING:
    from sailvit.models.structure.mllm import MLLM

_COSTS = {
    "packed": "no attention and no layer crosses samples, and nothing is padded",
    "own": "the model is told where samples begin; nothing is padded",
    "rows": (
        "each sample is a padded row, samples of similar length share a call: more calls, and"
        " up to a quarter of padding among long samples"
    ),
}
"""What each way does and costs."""


@dataclass(frozen=True)
class Chosen:
    """A way, and why it was taken."""

    way: Way = PACKED_WAY
    """How samples are read."""
    evidence: PackingErrors | None = None
    """What the proof found; None before any proof."""
    findings: tuple[str, ...] = ()
    """Why the ways before it were not taken, a sentence each."""
    asked: Packing = "auto"
    """What the recipe asks for."""

    def __str__(self) -> str:
        """Which way, why, and what it costs."""
        way, evidence = self.way, self.evidence
        if evidence is None:
            return "samples are packed; not proved on this model"
        through = "the attention it was made with" if way.attention is None else way.attention
        why = "; ".join(self.findings) or (
            "" if self.asked != "rows" else "parallel.packing asks for it"
        )
        return (
            f"packing: {way.kind} ({_COSTS[way.kind]}), through {through}. Proved on these weights:"
            f" a change moves other samples by {evidence.others:.1g} and earlier tokens by"
            f" {evidence.past:.1g}; read alone, a sample differs by {evidence.alone:.1g}"
            f"{f'. Because {why}' if why else ''}"
        )


def choose_way(
    model: MLLM, asked: Packing = "auto", *, first: Chosen | None = None, longest: int = 0
) -> Chosen:
    """The way in which the model's language reads from now on, every process the same.

    Args:
        model: The model; its language's attention is set, and nothing else of it changes.
        asked: What the recipe asks for.
        first: What was chosen before, to begin with; ways that came before it are left out.
        longest: Tokens of the longest row that will be read, which the proof then reads too; 0
            leaves that out.

    Raises:
        ModelError: no way that was asked for keeps the samples apart; it says what was found.
    """
    register_attention()
    findings = [] if first is None else list(first.findings)
    ways = list(_ways(model, asked))
    if first is not None and first.way in ways:
        ways = ways[ways.index(first.way) :]
    with untouched(model.language):
        alone = _Alone(model)
        for way in ways:
            evidence, fault = _try(model, way, alone, longest)
            # One way for all: processes may have different kernels, and shards need equal
            # calls.
            faults = [found for found in gather_objects(fault) if found is not None]
            if evidence is not None and not faults:
                model.chosen = Chosen(way, evidence, tuple(findings), asked)
                return model.chosen
            findings.append(f"{_name(way)}: {(faults or ['not proved'])[0]}")
    raise ModelError(_refusal(model, asked, findings))


def _refusal(model: MLLM, asked: Packing, findings: list[str]) -> str:
    demanded = "" if asked == "auto" else f" with parallel.packing {asked}"
    advice = (
        "Set parallel.packing to auto or rows"
        if asked == "packed"
        else "Choose a language that is causal and takes inputs_embeds"
    )
    name = type(model.language).__name__
    return f"{name} cannot be trained on packs{demanded}: {'; '.join(findings)}. {advice}"


def _ways(model: MLLM, asked: Packing) -> Iterator[Way]:
    if asked != "rows":
        yield PACKED_WAY
        yield Way("own", PACKED)
    if asked == "packed":
        return
    if not exchangeable(model.language):
        yield Way("rows", None)
        yield Way("rows", None, masked=True)
        return
    for masked in (False, True):
        if getattr(model.language, "_supports_sdpa", False):
            yield Way("rows", ROWS, masked)
        yield Way("rows", "eager", masked)


def _name(way: Way) -> str:
    through = f" through {way.attention}" if way.kind == "rows" and way.attention else ""
    return f"{way.kind}{through}{', padding masked' if way.masked else ''}"


class _Alone:
    """Outputs of the proof's samples one at a time, through the model's own plain attention;
    computed at first use.
    """

    def __init__(self, model: MLLM) -> None:
        self._model = model
        table = model.language.get_input_embeddings()
        self.vocabulary = int(table.num_embeddings)
        self._lengths = proof_lengths(model.language.config)
        self.segments = segments_of(self._lengths, model.device)
        self.tokens = draw_tokens(self.vocabulary, self._lengths, model.device)
        self._made: torch.Tensor | None = None

    def outputs(self) -> torch.Tensor:
        """float[T, W]."""
        if self._made is None:
            self._made = self._read("eager" if exchangeable(self._model.language) else None)
        return self._made

    def _read(self, attention: str | None) -> torch.Tensor:
        model = self._model
        way = Way("rows", attention)
        use_attention(model.language, attention)
        # Never compiled: the plain code is what is compared with, and every length of a sample
        # would be compiled for once.
        with torch.compiler.set_stance("force_eager"):
            return read_alone(
                lambda tokens, segments: model.read(tokens, segments, way),
                self.tokens,
                self._lengths,
            )


def _try(
    model: MLLM, way: Way, alone: _Alone, longest: int
) -> tuple[PackingErrors | None, str | None]:
    """The errors of a way, None when it cannot run at all; and its fault, if any."""
    try:
        expected = alone.outputs()
        use_attention(model.language, way.attention)
        evidence = measure(
            lambda tokens, segments: model.read(tokens, segments, way),
            alone.tokens,
            alone.segments,
            expected,
            alone.vocabulary,
        )
        # Rows start anew with every sample.
        if way.kind != "rows" and evidence.fault is None and longest > len(alone.tokens):
            behind = measure_behind(
                lambda tokens, segments: model.read(tokens, segments, way, last=len(alone.tokens)),
                alone.tokens,
                alone.segments,
                expected,
                longest,
            )
            evidence = replace(evidence, behind=behind)
    except FAULTS as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        return None, reason if isinstance(error, ModelError) else f"{type(error).__name__} {reason}"
    return evidence, evidence.fault
