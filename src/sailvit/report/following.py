"""Follows a run from another process, by its files alone; of growing files only new lines are
read.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from sailvit.core.bad_records import left_out, merged_quarantines
from sailvit.core.errors import RunError
from sailvit.core.lock import is_held
from sailvit.core.ownership import LOCK
from sailvit.core.remaining import seconds_ahead
from sailvit.core.run import RunFolder, read_json

MEASURES = ("samples_per_s", "answer_tokens_per_s", "mfu", "padding", "grad_norm")
"""Columns of metrics.jsonl that are kept step by step."""


@dataclass
class StageSoFar:
    """One stage as far as it is known."""

    name: str
    """Its name in the recipe."""
    index: int
    """Its place, from 0."""
    train: dict[str, float] = field(default_factory=dict)
    """Share of the learning rate by part, where the run wrote down its plan."""
    length: dict[str, Any] = field(default_factory=dict)
    """Its length as the recipe gives it, where the run wrote down its plan."""
    finished: bool = False
    """Whether its parts are saved."""
    columns: dict[str, list[float]] = field(default_factory=dict)
    """Per step: losses as `loss/<objective>`, the measures, and `wait`, the share of the step
    spent waiting."""
    last: dict[str, Any] = field(default_factory=dict)
    """The last step's line; empty before the first."""
    seconds: float = 0.0
    """Time spent in its steps."""
    skipped: int = 0
    """Steps that changed nothing because they were not finite."""

    def take(self, line: dict[str, Any]) -> None:
        """Add a step."""
        self.last = line
        self.seconds += line["seconds"]
        self.skipped += bool(line.get("skipped"))
        values = {f"loss/{name}": value for name, value in line["loss"].items()}
        values |= {name: line.get(name) for name in MEASURES}
        values["wait"] = line["wait"] / max(line["seconds"], 1e-9)
        for name, value in values.items():
            if value is not None:
                self.columns.setdefault(name, []).append(value)

    @property
    def done(self) -> float | None:
        """Share of it that is done, from 0 to 1; None: unknown."""
        if self.finished or not self.last:
            return 1.0 if self.finished else 0.0
        if "done" in self.last:
            return float(self.last["done"])
        known = [
            self.last[unit] / total
            for unit, total in self.length.items()
            if total and unit in self.last
        ]
        return min(known[0], 1.0) if known else None

    @property
    def left(self) -> float | None:
        """Seconds to its end at the speed so far; None: unknown."""
        return self.seconds / self.done * (1 - self.done) if self.done else None


@dataclass(frozen=True)
class RunSoFar:
    """A run as its files show it at one moment."""

    path: Path
    """The folder."""
    name: str
    """The recipe's name."""
    stages: list[StageSoFar]
    """Stages in order, also those to come if the run wrote down its plan."""
    resumed: int
    """How often it was resumed."""
    complete: bool
    """Whether every stage is finished."""
    quiet: float | None
    """Seconds since the last step was written; None: no step yet."""
    events: list[dict[str, Any]]
    """Spikes, rollbacks and decisions of the learning-rate search."""
    monitoring: list[dict[str, Any]]
    """Lines of monitoring.jsonl."""
    proofs: list[dict[str, Any]]
    """Proofs of training."""
    left_out: dict[str, Counter[str]]
    """Records that could not be read: per source, how often each kind."""
    held: bool | None = True
    """Whether the process that writes the run lives; None: none has it open."""

    @property
    def ended(self) -> str | None:
        """How it ended: `complete`, `stopped` in order, or `crashed`; None while it runs."""
        if self.complete:
            return "complete"
        # A process that ends in order takes its lock away; a killed one leaves it.
        return {True: None, False: "crashed", None: "stopped"}[self.held]

    @property
    def left(self) -> float | None:
        """Seconds to the end of its last stage; None where that cannot be known."""
        stage = self.stage
        if stage is None or stage.left is None:
            return None
        later = [each.length for each in self.stages if each.index > stage.index]
        ahead = seconds_ahead(
            later,
            samples=stage.last["samples"],
            tokens=stage.last["tokens"],
            seconds=stage.seconds,
        )
        return None if ahead is None else stage.left + ahead

    @property
    def stage(self) -> StageSoFar | None:
        """The stage of the last step; None: no step yet."""
        return next((stage for stage in reversed(self.stages) if stage.last), None)


class Growing:
    """A file of JSON lines that another process appends to, cuts back or replaces."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._inode = -1

    def news(self) -> tuple[list[dict[str, Any]], bool]:
        """Complete lines since the last call, and whether they replace all that came before."""
        try:
            with self._path.open("rb") as file:
                anew = self._begun_anew(file.fileno())
                file.seek(self._at)
                read = file.read()
        except FileNotFoundError:
            anew, self._at, self._inode = self._inode >= 0, 0, -1
            return [], anew
        # The writer may be in the middle of the last line, which is read when it is whole.
        whole = read[: read.rfind(b"\n") + 1]
        self._at += len(whole)
        return [json.loads(line) for line in whole.splitlines()], anew

    def _begun_anew(self, descriptor: int) -> bool:
        found = os.fstat(descriptor)
        # A rollback cuts the file back, an overwritten run has another file under the name.
        anew = self._inode >= 0 and (found.st_ino != self._inode or found.st_size < self._at)
        if anew:
            self._at = 0
        self._inode = found.st_ino
        return anew


class Follower:
    """Reads one run's files again and again."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._steps = Growing(run.metrics)
        self._stages: dict[int, StageSoFar] = {}
        self._others = {
            name: Growing(getattr(run, name)) for name in ("events", "monitoring", "proofs")
        }
        self._lines: dict[str, list[dict[str, Any]]] = {name: [] for name in self._others}
        self._quarantine: dict[Path, tuple[Growing, list[dict[str, Any]]]] = {}

    def read(self) -> RunSoFar:
        """The run as its files show it now.

        Raises:
            RunError: the folder holds no run.
        """
        if not self._run.manifest.exists():
            raise RunError(f"{self._run.path} holds no run yet: {self._why_none()}")
        # Before the manifest: a run that ends between the two is then seen as complete, not
        # stopped.
        held = is_held(self._run.path / LOCK)
        manifest = read_json(self._run.manifest)
        self._follow_steps()
        for name, file in self._others.items():
            self._lines[name] = _extended(self._lines[name], file)
        stages = self._planned(manifest)
        return RunSoFar(
            path=self._run.path,
            name=manifest["name"],
            stages=stages,
            resumed=len(manifest.get("resumed", [])),
            complete=self._complete(manifest, stages),
            quiet=self._quiet(),
            events=self._lines["events"],
            monitoring=self._lines["monitoring"],
            proofs=self._lines["proofs"],
            left_out=self._left_out(),
            held=held,
        )

    def _why_none(self) -> str:
        if is_held(self._run.path / LOCK):
            return "a process is still measuring data or loading parts for it; ask again later"
        return f"there is no {self._run.manifest.name}; is it a run folder?"

    def _follow_steps(self) -> None:
        lines, anew = self._steps.news()
        if anew:
            self._stages = {}
        for line in lines:
            index = line["stage_index"]
            self._stages.setdefault(index, StageSoFar(line["stage"], index)).take(line)

    def _planned(self, manifest: dict[str, Any]) -> list[StageSoFar]:
        """The stages that have begun and, where they are written down, those to come."""
        plan = manifest.get("plan", [])
        finished = {stage["index"]: stage for stage in manifest["stages"]}
        for index in sorted({*range(len(plan)), *finished} - self._stages.keys()):
            name = plan[index]["name"] if index < len(plan) else finished[index]["name"]
            self._stages[index] = StageSoFar(name, index)
        for index, stage in self._stages.items():
            stage.finished = index in finished
            if index < len(plan):
                stage.train, stage.length = plan[index]["train"], plan[index]["length"]
        return [self._stages[index] for index in sorted(self._stages)]

    def _complete(self, manifest: dict[str, Any], stages: list[StageSoFar]) -> bool:
        """Whether every stage is finished; a run that wrote down no plan is over when its state
        is gone.
        """
        over = bool(stages) and all(stage.finished for stage in stages)
        return over and ("plan" in manifest or not self._run.state.exists())

    def _quiet(self) -> float | None:
        return (
            # The clock of the machine that writes may be ahead of this one's.
            max(0.0, time.time() - self._run.metrics.stat().st_mtime)
            if self._run.metrics.exists()
            else None
        )

    def _left_out(self) -> dict[str, Counter[str]]:
        """Counts over the files of all ranks."""
        for path in self._run.quarantines:
            file, lines = self._quarantine.get(path) or (Growing(path), [])
            self._quarantine[path] = file, _extended(lines, file)
        return left_out(
            merged_quarantines(chain.from_iterable(lines for _, lines in self._quarantine.values()))
        )


def _extended(known: list[dict[str, Any]], file: Growing) -> list[dict[str, Any]]:
    """What is known of a file and what is new in it; from its beginning when it was replaced."""
    lines, anew = file.news()
    return lines if anew else known + lines
