"""Those who train and measure for a study, one task at a time: processes of this machine, which end
with their parent.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from sailvit.api.study.tasks import Outcome, Task, perform
from sailvit.core.errors import InterruptedRunError, one_line

GRACE = 120.0
"""Seconds in which a worker that is to end may save its state."""


class Worker(Protocol):
    """Who does one task at a time."""

    @property
    def alive(self) -> bool:
        """Whether it can take another task."""

    def give(self, task: Task) -> None:
        """Let it begin with a task."""

    def outcome(self) -> Outcome:
        """What came of its task."""

    def stop(self) -> None:
        """Ask it to end; a training that runs saves its state first."""

    def wait(self) -> None:
        """Wait for the end, and force it where it does not come."""


AnyWorker = TypeVar("AnyWorker", bound=Worker)


class Workers(Protocol[AnyWorker]):
    """Where workers come from."""

    count: int
    """How many may work side by side."""

    def start(self, number: int, log: Path) -> AnyWorker:
        """Another worker; it tells in `log` what it does."""

    def answered(self, workers: Sequence[AnyWorker], timeout: float | None) -> list[AnyWorker]:
        """Those of `workers` that have an outcome; waits for one, at most `timeout` seconds."""


class LocalWorkers:
    """Processes of this machine."""

    def __init__(self, count: int | None = None) -> None:
        self.count = count or default_count()
        """How many may work side by side."""
        # Of those this process may use (OMP_NUM_THREADS, affinity), not of all cores: threads that
        # wait for each other spin, which costs a busy machine more than they gain.
        self.threads = max(1, torch.get_num_threads() // self.count)
        """Threads of each."""

    def start(self, number: int, log: Path) -> WorkerProcess:
        """Another process; it writes to `log`."""
        return WorkerProcess(number, log, self.threads)

    def answered(
        self, workers: Sequence[WorkerProcess], timeout: float | None
    ) -> list[WorkerProcess]:
        """Those that have an outcome, or have ended."""
        ready = wait([worker.connection for worker in workers], timeout)
        return [worker for worker in workers if worker.connection in ready]


def default_count() -> int:
    """One process per GPU, or per core where there is none: models of a study are small, and a
    second thread gains them little.
    """
    return torch.cuda.device_count() or os.cpu_count() or 1


class WorkerProcess:
    """A process of this machine, and the way to it."""

    def __init__(self, number: int, log: Path, threads: int) -> None:
        # Not forked: CUDA cannot be used in a fork of a process that has used it.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._process = context.Process(
            target=_serve, args=(theirs, log, number, threads), name=f"study-{number}"
        )
        self._process.start()
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
            self._process.join()
            return Outcome("failed", self._death())
        return found

    @property
    def alive(self) -> bool:
        """Whether it can take another task."""
        return self._process.is_alive()

    def stop(self) -> None:
        """End the process; a training that runs saves its state first."""
        self._process.terminate()

    def wait(self) -> None:
        """Wait for the end, and force it where it does not come."""
        # Time to save a state; after it the process hangs, and would keep its GPU.
        self._process.join(GRACE)
        self._process.kill()
        self._process.join()
        self.connection.close()

    def _death(self) -> str:
        text = self._log.read_text(encoding="utf-8", errors="replace").strip()
        code = self._process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        last = text.splitlines()[-1] if text else "nothing"
        return f"the process ended by {how}; {self._log} ends with: {one_line(last, 300)}"


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
        time.sleep(GRACE)
        os._exit(1)


def _take_device(number: int) -> None:
    """Leave this process one GPU of those that are visible; a no-op without any."""
    count = torch.cuda.device_count()
    # By the variable and before CUDA starts, so that the device is number 0 to all other code.
    if count > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[number % count]
