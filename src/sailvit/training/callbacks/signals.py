"""Ctrl-C and SIGTERM as a stop after the step in progress."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from sailvit.distributed.processes import sum_counts
from sailvit.training.stages.callback import Hook
from sailvit.training.stages.stage_run import StageJob, StepRecord


class StopOnSignal(Hook):
    """Turns Ctrl-C and SIGTERM into a stop after the step in progress; a second one is not held back."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def stage_started(self, job: StageJob) -> None:
        """Listen, once."""
        if not self._previous:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)

    def step_ended(self, job: StageJob, record: StepRecord) -> None:
        """Ask the loop to stop; all processes after the same step, whichever of them was told."""
        asked = sum_counts([int(self.received is not None)], job.device)[0]
        job.stop = job.stop or asked > 0

    def close(self) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = signal.Signals(number).name
        self.close()
