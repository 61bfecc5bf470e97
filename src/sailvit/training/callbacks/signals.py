"""Ctrl-C and SIGTERM as a stop after the step in progress."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from sailvit.distributed.processes import sum_counts
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord


class StopOnSignal(Callback):
    """Turns Ctrl-C and SIGTERM into a stop after the step in progress; a second one is not held
    back.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def stage_started(self, run: StageRun) -> None:
        """Listen, once; outside the main thread Python gives no signals, so nobody is asked
        there.
        """
        if not self._previous and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """Ask the loop to stop; all processes after the same step, whichever of them was told."""
        asked = sum_counts([int(self.received is not None)], run.device)[0]
        run.stop = run.stop or asked > 0

    def close(self) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            # None: a handler that was not installed from Python, which cannot be given back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = signal.Signals(number).name
        self.close()
