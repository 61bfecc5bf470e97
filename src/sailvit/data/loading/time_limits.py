"""A limit on the time that reading a record may take."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, TypeVar

from sailvit.core.errors import DataError

_Value = TypeVar("_Value")


class _Late(BaseException):
    """The time is up. It is not an Exception, as libraries on the way catch those as damage in
    their data.
    """


class Limit:
    """A context whose calls end after so many seconds; None: they may take any time.

    The limit is an alarm signal: it ends Python code and waiting (for a disk, a pipe, a
    network), but a computation inside a library goes on until it returns. Outside the main
    thread, and where the alarm is in use already, there is no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._rings = False
        self._before: Any = None

    def __enter__(self) -> Limit:
        main = threading.current_thread() is threading.main_thread()
        self._rings = (
            self._seconds is not None and main and signal.getitimer(signal.ITIMER_REAL)[0] == 0
        )
        if self._rings:
            self._before = signal.signal(signal.SIGALRM, _ring)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._rings:
            signal.signal(signal.SIGALRM, self._before)

    def call(
        self,
        function: Callable[..., _Value],
        *given: Any,
        undo: Callable[[], None] = lambda: None,
    ) -> _Value:
        """The function's result; DataError of kind `timeout` when it takes longer twice.

        A late call is made once more, after `undo`: the alarm counts the time of the clock, so a
        process that was suspended, or had no share of a loaded machine, is late with good records.
        """
        if not self._rings or self._seconds is None:
            return function(*given)
        try:
            return self._timed(self._seconds, function, *given)
        except _Late:
            undo()
        try:
            return self._timed(self._seconds, function, *given)
        except _Late as error:
            raise DataError(
                f"not read within {self._seconds:g} s, nor when tried again; expected a disk that"
                " answers and a machine that has time for this process: check both, or raise"
                " `quarantine.timeout`",
                kind="timeout",
            ) from error

    def _timed(self, seconds: float, function: Callable[..., _Value], *given: Any) -> _Value:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            return function(*given)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _ring(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _Late
