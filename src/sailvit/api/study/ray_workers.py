"""A study's tasks on the machines of a Ray cluster."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from math import inf
from pathlib import Path
from typing import Any

import torch

from sailvit.api.study.tasks import Outcome, Task, perform
from sailvit.api.study.workers import GRACE
from sailvit.core.errors import InterruptedRunError, one_line
from sailvit.distributed.ray_cluster import connected_ray

_SLICE = 0.5
"""Seconds of one wait."""


class RayWorkers:
    """Tasks of Ray, each with a core of its own, and with a GPU where the cluster has any."""

    def __init__(self, count: int | None = None) -> None:
        self._ray = connected_ray()
        held = self._ray.cluster_resources()
        gpus = int(held.get("GPU", 0))
        # More than there is room for wait for others to end, or for machines to come.
        self.count = count or gpus or int(held.get("CPU", 1))
        """Tasks that are submitted side by side."""

        # `max_retries`: a failure is told, and tried again by the study's next start.
        self._perform = self._ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=0)(
            _perform
        )

    def start(self, number: int, log: Path) -> RayWorker:
        """Another worker; its tasks write to `log`."""
        del number
        return RayWorker(self._ray, self._perform, log)

    def answered(self, workers: Sequence[RayWorker], timeout: float | None) -> list[RayWorker]:
        """Those whose tasks have ended."""
        until = inf if timeout is None else time.monotonic() + timeout
        ready: list[Any] = []
        # In short waits: within a long one Ray does not let the handler of a signal run.
        while not ready and time.monotonic() < until:
            ready = self._wait([worker.task for worker in workers])
        return [worker for worker in workers if worker.task in ready]

    def _wait(self, tasks: list[Any]) -> list[Any]:
        try:
            ready: list[Any] = self._ray.wait(tasks, timeout=_SLICE)[0]
        except SystemError as error:
            # What a signal's handler raised while Ray's C code ran comes out so.
            if isinstance(error.__cause__, InterruptedRunError):
                raise error.__cause__ from None
            raise
        return ready


class RayWorker:
    """Gives Ray one task at a time."""

    alive = True

    def __init__(self, ray: Any, perform_there: Any, log: Path) -> None:
        self._ray, self._perform, self._log = ray, perform_there, log
        self.task: Any = None
        """Ray's reference to the outcome of the task that it has."""

    def give(self, task: Task) -> None:
        """Submit a task; it begins when a machine has room."""
        self.task = self._perform.remote(task, self._log)

    def outcome(self) -> Outcome:
        """What came of its task; one whose process or machine is gone has failed."""
        task, self.task = self.task, None
        try:
            found: Outcome = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            told = str(error).strip().splitlines() or [type(error).__name__]
            return Outcome(
                "failed", f"on the Ray cluster: {one_line(told[-1], 300)}; see {self._log}"
            )
        return found

    def stop(self) -> None:
        """Cancel its task: as Ctrl-C would, so that a training that runs saves its state."""
        if self.task is not None:
            self._ray.cancel(self.task)

    def wait(self) -> None:
        """Wait for the end of its task, and force it where it does not come."""
        if self.task is None:
            return
        ready, _ = self._ray.wait([self.task], timeout=GRACE)
        if not ready:
            self._ray.cancel(self.task, force=True)


def _perform(task: Task, log: Path) -> Outcome:
    """Do a task in a process of the cluster."""
    torch.set_num_threads(1)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        try:
            return perform(task)
        finally:
            # Ray brings the last lines alone to the study.
            raised = sys.exc_info()[1]
            if raised is not None and not isinstance(raised, InterruptedRunError):
                traceback.print_exception(raised)
