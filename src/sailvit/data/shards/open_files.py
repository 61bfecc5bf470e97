"""Files that stay open: opening one takes longer than reading a record of it."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

_MOST = 64
"""Files open at once, of the 1024 that a process may usually have."""


class OpenFiles:
    """Reads parts of files, of which the least recently used is closed when there are too many.

    A file that is replaced is read as it was until it is closed. `OpenFiles` can be forked,
    pickled and shared by threads.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._open = lru_cache(most)(_Open)

    def read(self, path: str, start: int, size: int) -> bytes:
        """`size` bytes from byte `start` on; fewer where the file ends before."""
        # The reference keeps it open if another thread pushes it out of the cache meanwhile.
        file = self._open(path)
        return os.pread(file.number, size, start)

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenFiles, (self._most,)


class _Open:
    """A file that is open as long as there is a reference to it."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)
