"""Files kept open: to open one takes longer than to read a record of it."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

_MOST = 64
"""Files open at once, of the 1024 that a process may usually have."""


class OpenFiles:
    """Reads stretches of files; the one not asked for longest is closed when a new one is needed.

    A file that is replaced stays the old one until then. It can be forked, pickled and shared
    by threads.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._open = lru_cache(most)(_Open)

    def read(self, path: str, start: int, size: int) -> bytes:
        """`size` bytes from byte `start` on; fewer where the file ends before."""
        # Held until it is read: another thread may push it out meanwhile.
        file = self._open(path)
        return os.pread(file.number, size, start)

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenFiles, (self._most,)


class _Open:
    """A file that is open as long as somebody holds it, so no other thread can close it on the
    way.
    """

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)
