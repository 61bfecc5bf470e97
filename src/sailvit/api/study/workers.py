"""Processes that train and measure for a study, one task at a time, and end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch

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

_GRACE = 120.0
"""Seconds in which a process whose parent is gone may save its state."""


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


class Worker:
    """A process, and the way to it."""

    def __init__(self, number: int, log: Path, threads: int) -> None:
        # Not forked: CUDA cannot be used in a fork of a process that has used it.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self.process = context.Process(
            target=_serve, args=(theirs, log, number, threads), name=f"study-{number}"
        )
        self.process.start()
        # Without this copy the pipe ends when the process does.
        theirs.close()

    def give(self, task: Task) -> None:
        """Let the process begin with a task."""
        self.connection.send(task)

    def outcome(self) -> Outcome:
        """What came of its task; a process that ended without an answer has failed."""
        try:
            found: Outcome = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return Outcome("failed", self._death())
        return found

    def stop(self) -> None:
        """End the process; a training that runs saves its state first."""
        self.process.terminate()

    def wait(self) -> None:
        """Wait for the end, and force it where it does not come."""
        # Time to save a state; after it the process hangs, and would keep its GPU.
        self.process.join(_GRACE)
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _death(self) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace").strip()
        code = self.process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        last = text.splitlines()[-1] if text else "nothing"
        return f"the process ended by {how}; {self.log} ends with: {one_line(last, 300)}"


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


def _serve(connection: Connection, log: Path, number: int, threads: int) -> None:
    """Do tasks until there are no more."""
    # A session of its own: Ctrl-C reaches the parent alone, which asks every process to save.
    os.setsid()
    with log.open("a", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    threading.Thread(target=_follow_parent, daemon=True).start()
    _take_device(number)
    torch.set_num_threads(threads)
    while True:
        try:
            connection.send(perform(connection.recv()))
        except (EOFError, InterruptedRunError):
            return


def _follow_parent() -> None:
    """End this process when its parent is gone, so that a killed study leaves none behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # A training that runs takes it as a wish to stop, and saves its state.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
        os._exit(1)


def _take_device(number: int) -> None:
    """Leave this process one GPU of those that are visible; a no-op without any."""
    count = torch.cuda.device_count()
    # By the variable and before CUDA starts, so that the device is number 0 to all other code.
    if count > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[number % count]
