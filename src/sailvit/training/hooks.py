"""Hooks: side effects of training at three moments, plus a close."""

from __future__ import annotations

import dataclasses
import signal
from types import FrameType
from typing import Any

from sailvit.distributed.processes import sum_counts
from sailvit.training.curves import Curves
from sailvit.training.job import StageJob, StepRecord


class Hook:
    """Base of all hooks: does nothing at any moment."""

    def stage_started(self, job: StageJob) -> None:
        """Before the first step, or the first after a resume."""

    def step_ended(self, job: StageJob, record: StepRecord) -> None:
        """After every optimizer step."""

    def stage_ended(self, job: StageJob) -> None:
        """After the last step, also when the stage was stopped."""

    def close(self) -> None:
        """When the run is over, however it ended."""


class MetricsHook(Hook):
    """Writes every step to metrics.jsonl, and its curves to the tools that the recipe names."""

    def __init__(self, curves: Curves) -> None:
        self._curves = curves

    def stage_started(self, job: StageJob) -> None:
        """Open the tools."""
        del job
        self._curves.open()

    def step_ended(self, job: StageJob, record: StepRecord) -> None:
        """Write the step."""
        job.journal.write(job.folder.metrics, dataclasses.asdict(record))
        curves = {f"loss/{name}": value for name, value in record.loss.items()}
        curves |= {f"lr/{part}": value for part, value in record.lr.items()}
        curves |= {
            name: getattr(record, name)
            for name in ("grad_norm", "padding", "samples_per_s", "wait", "mfu")
        }
        self._curves.add(job, curves)

    def close(self) -> None:
        """Let the tools finish."""
        self._curves.close()


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
