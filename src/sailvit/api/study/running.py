"""Running a study: trainings side by side as soon as what they start from is there, cells as soon
as their trainings are.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from sailvit.api.study.cell_files import is_done, renew_version, write_failed, write_measured
from sailvit.api.study.lineage import Lineage, PlannedCell, Training
from sailvit.api.study.measures import Drawn, Trained
from sailvit.api.study.planning import to_do
from sailvit.api.study.tasks import MeasureTask, Outcome, Task, TrainTask
from sailvit.api.study.workers import LocalWorkers, Worker, Workers
from sailvit.core.errors import InterruptedRunError
from sailvit.core.ownership import manifest_of
from sailvit.core.study.folder import DONE, FAILED, StudyFolder

_LATER = 5.0
"""Seconds until a training that another machine does is looked at again."""


@dataclass(frozen=True)
class Event:
    """Something that happened in a study."""

    kind: Literal["begins", "trained", "measured", "failed", "waiting"]
    """What."""
    name: str
    """The training or cell."""
    seconds: float = 0.0
    """How long it took."""
    told: str = ""
    """What it will train, why it failed, for whom it waits, or how it compares with what was there."""
    trained: tuple[int, int] = (0, 0)
    """Trainings that are there, and that are needed."""
    cells: tuple[int, int] = (0, 0)
    """Cells that are there, and all."""


@dataclass
class StudyRun:
    """The state of a study that runs."""

    lineage: Lineage
    """The trainings."""
    planned: Sequence[PlannedCell]
    """The cells to run."""
    folder: StudyFolder
    """Where cells are written."""
    workers: Workers[Any] = field(default_factory=lambda: LocalWorkers(1))
    """Who trains and measures."""
    seen: Callable[[Event], None] = lambda event: None
    """Told what happens."""
    again: bool = False
    """Whether cells that are there are measured again, and compared with their files."""
    _trained: set[str] = field(default_factory=set)
    """Keys of trainings that are there."""
    _failed: dict[str, str] = field(default_factory=dict)
    """Why trainings failed, by key."""
    _cells: dict[str, str] = field(default_factory=dict)
    """Status of cells that are settled, by name."""
    _later: dict[str, float] = field(default_factory=dict)
    """When trainings that others do are looked at again."""
    _running: dict[Worker, str] = field(default_factory=dict)
    """The key of the training, or the name of the cell, that each worker is at."""
    _idle: list[Worker] = field(default_factory=list)
    """Workers without a task."""
    _started: int = 0
    """Workers that were started."""

    def run(self) -> dict[str, str]:
        """Train and measure what is missing; the status of every cell by its name.

        Raises:
            InterruptedRunError: a signal asked to stop; the same command goes on.
        """
        self._look()
        for each in self.planned if self.again else ():
            told = to_do(self.lineage, self.folder, each)
            self._tell("begins", each.cell.name, Outcome("done", told))
        with _stoppable():
            try:
                while self._begin_tasks() or self._running:
                    self._take_outcomes()
            finally:
                self._end()
        return dict(self._cells)

    def _look(self) -> None:
        """Find out what is there already."""
        for key, training in self.lineage.trainings.items():
            if manifest_of(self.lineage.run(training).path).get("stages"):
                self._trained.add(key)
        for each in self.planned:
            if is_done(self.folder, each):
                renew_version(self.folder, self.lineage.study, each)
                if not self.again:
                    self._cells[each.cell.name] = DONE

    def _begin_tasks(self) -> bool:
        """Give tasks to idle workers; whether anything waits for another machine."""
        while len(self._running) < self.workers.count and (found := self._next()) is not None:
            name, task = found
            worker = self._idle.pop() if self._idle else self._new_worker()
            worker.give(task)
            self._running[worker] = name
        # A training that only failed cells needed is nobody's any more.
        return any(
            key in self._later
            for each in self.planned
            if each.cell.name not in self._cells
            for key in each.trainings
        )

    def _next(self) -> tuple[str, Task] | None:
        """The first task, in the order of cells, whose needs are met."""
        # Cells in order, and not trainings: the first cells are then complete early, should the
        # study end.
        busy = set(self._running.values())
        for each in self.planned:
            name = each.cell.name
            if name in self._cells or name in busy:
                continue
            missing = [key for key in each.trainings if key not in self._trained]
            if wrong := next((key for key in missing if key in self._failed), None):
                self._fail_cell(each, self._told_of(wrong))
            elif not missing:
                return name, self._measuring(each)
            elif ready := self._ready(missing, busy):
                return ready, self._training(ready)
        return None

    def _ready(self, missing: Sequence[str], busy: set[str]) -> str | None:
        """The first of the trainings that can begin; None when none can yet."""
        for key in missing:
            if key not in busy and self._is_ready(self.lineage.trainings[key]):
                return key
        return None

    def _is_ready(self, training: Training) -> bool:
        parents = training.parents & self.lineage.trainings.keys()
        waits = self._later.get(training.key, 0.0) > time.monotonic()
        return parents <= self._trained and not waits

    def _training(self, key: str) -> TrainTask:
        training = self.lineage.trainings[key]
        self._later.pop(key, None)
        recipe, folder = self.lineage.located(training.recipe), self.lineage.run(training).path
        return TrainTask(recipe, folder, training.known)

    def _measuring(self, each: PlannedCell) -> MeasureTask:
        models = {
            step: Trained(self.lineage.located_model(model), seed, self._run_of(each, step))
            for step, (model, seed) in each.models.items()
        }
        drawn = Drawn(each.cell.seed, self.lineage.runs / "drawn")
        sources = {n: m.source for n, m in each.measures.items() if m.source is not None}
        known = self.lineage.contents.known(sources)
        return MeasureTask(models, each.measures, drawn, known)

    def _run_of(self, each: PlannedCell, step: str) -> Path | None:
        key = each.last.get(step)
        return None if key is None else self.lineage.run(self.lineage.trainings[key]).path

    def _new_worker(self) -> Worker:
        self._started += 1
        log = self.lineage.runs / "logs" / f"{_host()}-{self._started}.log"
        started: Worker = self.workers.start(self._started - 1, log)
        return started

    def _take_outcomes(self) -> None:
        """Wait until some worker has an answer, and take it."""
        # Without an end only where nothing else is awaited: another machine's training sends no
        # message.
        timeout = _LATER if self._later else None
        if not self._running:
            time.sleep(_LATER)
            return
        for worker in self.workers.answered(list(self._running), timeout):
            outcome, name = worker.outcome(), self._running.pop(worker)
            # Kept for the next task: a new process imports torch for seconds.
            if worker.alive:
                self._idle.append(worker)
            else:
                worker.wait()
            if name in self.lineage.trainings:
                self._take_training(name, outcome)
            else:
                self._take_cell(name, outcome)

    def _take_training(self, key: str, outcome: Outcome) -> None:
        name = self.lineage.trainings[key].folder
        if outcome.state == "busy":
            self._later[key] = time.monotonic() + _LATER
            self._tell("waiting", name, outcome)
        elif outcome.state == "failed":
            self._failed[key] = outcome.told
            self._tell("failed", name, outcome)
        else:
            self._trained.add(key)
            self._tell("trained", name, outcome)

    def _take_cell(self, name: str, outcome: Outcome) -> None:
        each = next(planned for planned in self.planned if planned.cell.name == name)
        if outcome.state == "failed":
            self._fail_cell(each, outcome.told)
            return
        told = write_measured(self.folder, self.lineage, each, outcome.values)
        self._cells[name] = DONE
        self._tell("measured", name, replace(outcome, told=told))

    def _fail_cell(self, each: PlannedCell, told: str) -> None:
        name = each.cell.name
        write_failed(self.folder, self.lineage, each, told)
        self._cells[name] = FAILED
        self._tell("failed", name, Outcome("failed", told))

    def _told_of(self, key: str) -> str:
        return f"training {self.lineage.trainings[key].folder}: {self._failed[key]}"

    def _tell(self, kind: Any, name: str, outcome: Outcome) -> None:
        needed = {key for each in self.planned for key in each.trainings}
        done = sum(status == DONE for status in self._cells.values())
        self.seen(
            Event(
                kind,
                name,
                outcome.seconds,
                outcome.told,
                trained=(len(needed & self._trained), len(needed)),
                cells=(done, len(self.planned)),
            )
        )

    def _end(self) -> None:
        """End all workers; trainings that run save their state."""
        ending = [*self._running, *self._idle]
        for worker in ending:
            worker.stop()
        for worker in ending:
            worker.wait()
        self._running, self._idle = {}, []


@contextmanager
def _stoppable() -> Iterator[None]:
    """A context in which SIGTERM and Ctrl-C end a study as an InterruptedRunError."""

    def stop(number: int, frame: FrameType | None) -> None:
        """Raise what ends the study."""
        del frame
        raise InterruptedRunError(
            "the study was stopped; trainings that ran have saved their states. The same command"
            " goes on",
            preempted=number == signal.SIGTERM,
        )

    # They come back afterwards: a notebook that runs a study has handlers of its own.
    before = {each: signal.signal(each, stop) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _host() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"
