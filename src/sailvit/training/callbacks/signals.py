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
    """Turns Ctrl-C and SIGTERM into a stop after the step in progress; a second signal acts at
    once.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._asked = False
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def cause(self) -> str | None:
        """What asked for a stop, on this process or another; None: no signal did."""
        return self.received or ("another process" if self._asked else None)

    def stage_started(self, run: StageRun) -> None:
        """Install the handlers, once; a no-op outside the main thread, where Python allows no
        handlers.
        """
        if not self._previous and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """Ask the loop to stop, on all processes after the same step, if any got a signal."""
        self._asked = sum_counts([int(self.received is not None)], run.device)[0] > 0
        run.stop = run.stop or self._asked

    def close(self) -> None:
        """Put the earlier handlers back."""
        for number, handler in self._previous.items():
            # None: a handler that was not installed from Python, which Python cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = signal.Signals(number).name
        # From here on a signal does what it did before: nobody has to wait for a slow step.
        self.close()
