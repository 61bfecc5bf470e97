"""Rows in buckets by a key: in memory while they are few, in files when they are many, so that
memory is bounded.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[Any]
"""A structured array."""

_BUCKETS = 256
"""Files. Buckets are read one at a time, so about 1 / 256 of all rows is in memory."""


class ExternalBuckets:
    """Rows of one type; rows of equal key are in the same bucket."""

    def __init__(self, dtype: np.dtype[Any], folder: Path, *, most: int = 1 << 20) -> None:
        self._dtype = dtype
        self._folder = folder
        self._most = most
        self._held: list[tuple[NDArray[np.uint64], Rows]] = []
        self._count = 0
        self._spilled = False

    def add(self, keys: NDArray[np.uint64], rows: Rows) -> None:
        """Take rows with their keys uint64[n]. The upper bits choose the bucket, so pass keys
        through `rehash` first.
        """
        self._held.append((keys, rows))
        self._count += len(rows)
        if self._count >= self._most:
            self._flush()

    def buckets(self) -> Iterator[Rows]:
        """The rows, bucket by bucket, in the same order at every call."""
        if not self._spilled:
            yield np.concatenate([np.zeros(0, self._dtype), *(rows for _, rows in self._held)])
            return
        self._flush()
        for bucket in range(_BUCKETS):
            path = self._folder / f"{bucket:02x}"
            if path.exists():
                yield np.fromfile(path, dtype=self._dtype)

    def clear(self) -> None:
        """Forget the rows and delete their files."""
        self._held, self._count, self._spilled = [], 0, False
        shutil.rmtree(self._folder, ignore_errors=True)

    def _flush(self) -> None:
        if not self._held:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        buckets = (np.concatenate([keys for keys, _ in self._held]) >> np.uint64(56)).astype(
            np.int64
        )
        # Stable: within a bucket rows keep the order in which they were added.
        order = np.argsort(buckets, kind="stable")
        rows = np.concatenate([rows for _, rows in self._held])[order]
        ends = np.searchsorted(buckets[order], np.arange(_BUCKETS + 1))
        for bucket, (start, end) in enumerate(pairwise(ends)):
            if end > start:
                with (self._folder / f"{bucket:02x}").open("ab") as file:
                    rows[start:end].tofile(file)
        self._held, self._count, self._spilled = [], 0, True
