"""What a study does one after the other: a training, or the measures of a cell."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sailvit.api.running import train_claimed
from sailvit.api.screen import Screen
from sailvit.api.study.contents import Known
from sailvit.api.study.measures import Drawn, Trained, measured
from sailvit.core.errors import InterruptedRunError, RunError, SailvitError, one_line
from sailvit.core.lock import living_holder
from sailvit.core.ownership import LOCK
from sailvit.core.recipe import Recipe
from sailvit.core.run import RunFolder
from sailvit.core.study.definition import Measure
from sailvit.training.callbacks.claim import claimed


@dataclass(frozen=True)
class TrainTask:
    """One training."""

    recipe: Recipe
    """Its recipe."""
    folder: Path
    """Its run folder."""
    known: Known
    """What it was planned to read."""


@dataclass(frozen=True)
class MeasureTask:
    """All measures of a cell."""

    models: Mapping[str, Trained]
    """The model after each measured step."""
    measures: Mapping[str, Measure]
    """What is measured, by name."""
    drawn: Drawn
    """What is drawn for them."""
    known: Known
    """What they were planned to read."""


Task = TrainTask | MeasureTask


@dataclass(frozen=True)
class Outcome:
    """What came of a task."""

    state: Literal["done", "busy", "failed"]
    """`busy`: another process is training it."""
    told: str = ""
    """Why it failed, or who is training it."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """What was measured, by measure."""
    seconds: float = 0.0
    """How long it took."""


def perform(task: Task) -> Outcome:
    """Do a task in this process."""
    began = time.perf_counter()
    try:
        done = _train(task) if isinstance(task, TrainTask) else Outcome("done", values=_ask(task))
    except SailvitError as error:
        if isinstance(error, InterruptedRunError):
            raise
        return Outcome("failed", one_line(error), seconds=time.perf_counter() - began)
    return Outcome(done.state, done.told, done.values, time.perf_counter() - began)


def _train(task: TrainTask) -> Outcome:
    folder, lock = RunFolder(task.folder), task.folder / LOCK
    try:
        # Several machines may come to a training that their cells share: one of them does it.
        with claimed(folder, "auto", len(task.recipe.stages)) as claim:
            if claim.deed != "nothing":
                # Hours may lie between the plan and this task.
                task.known.refuse_changed()
                train_claimed(task.recipe, folder, claim, Screen())
    except RunError as error:
        # No living holder, or ourselves: the error is another one and must be told.
        holder = living_holder(lock)
        if holder is None or holder.pid == os.getpid():
            raise
        return Outcome("busy", one_line(error))
    return Outcome("done")


def _ask(task: MeasureTask) -> dict[str, Any]:
    task.known.refuse_changed()
    return {
        name: measured(measure, task.models[measure.of], task.drawn)
        for name, measure in task.measures.items()
    }
