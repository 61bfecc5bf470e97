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

    def call(self, function: Callable[..., _Value], *given: Any) -> _Value:
        """The function's result; DataError of kind `timeout` when it takes longer."""
        if not self._rings or self._seconds is None:
            return function(*given)
        try:
            # Inside the outer `try`, as it may ring before the inner one begins.
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
            try:
                return function(*given)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except _Late as error:
            raise DataError(
                f"not read within {self._seconds:g} s; expected a disk that answers: check it,"
                " or raise `quarantine.timeout`",
                kind="timeout",
            ) from error


def _ring(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _Late
