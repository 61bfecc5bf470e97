"""A limit on how long a record may take."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sailvit.core.errors import DataError


class _Late(BaseException):
    """The time is up; no Exception, so that no library on the way takes it for damage of its own."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Gives up what runs inside after so many seconds: DataError of kind `timeout`.

    It is an alarm signal, so it ends waiting (for a disk, a pipe, a network) and Python code, but not a computation
    inside a library before that returns. Outside the main thread, and where the alarm is in use, there is no limit.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread() or _in_use():
        yield
        return
    before = signal.signal(signal.SIGALRM, _ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _Late as error:
        raise DataError(
            f"not read within {seconds:g} s; expected a disk that answers: look at it, or raise `quarantine.timeout`",
            kind="timeout",
        ) from error
    finally:
        signal.signal(signal.SIGALRM, before)


def _in_use() -> bool:
    return signal.getitimer(signal.ITIMER_REAL)[0] > 0


def _ring(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _Late
