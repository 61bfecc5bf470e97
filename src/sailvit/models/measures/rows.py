"""Tables of features that are read in blocks, as an embedding table of 150,000 rows may take
gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

BLOCK = 8192
"""Rows read at once: 128 MB of a table that is 4096 wide."""


class Rows(Protocol):
    """Rows float[N, D] that are read by position."""

    @property
    def width(self) -> int:
        """D: numbers per row."""

    def __len__(self) -> int:
        """N: number of rows."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows start to stop, float[n, D]."""


class ArrayRows:
    """Rows of an array float[N, D] that is in memory."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    @property
    def width(self) -> int:
        """D: numbers per row."""
        return int(self._array.shape[1])

    def __len__(self) -> int:
        return len(self._array)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows start to stop, float[n, D]."""
        return self._array[start:stop]


def blocks(rows: Rows, size: int = BLOCK) -> Iterator[NDArray[Any]]:
    """All rows in order, at most `size` at once."""
    for start in range(0, len(rows), size):
        yield rows.read(start, min(start + size, len(rows)))


def picked(rows: Rows, positions: NDArray[np.int64]) -> NDArray[Any]:
    """The rows at sorted positions int64[n], float[n, D]."""
    found = [rows.read(0, 0)]
    for start in range(0, len(rows), BLOCK):
        inside = positions[(positions >= start) & (positions < start + BLOCK)] - start
        if len(inside):
            found.append(rows.read(start, min(start + BLOCK, len(rows)))[inside])
    return np.concatenate(found)
