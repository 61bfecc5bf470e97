"""Counts of very many hashes in fixed memory: a count-min sketch of all, and exact counts of a
random sample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sailvit.dataprep.records.words import Hashes, rehash

Counts = NDArray[np.int64]
"""How often each hash occurs, int64[n]."""

_DEPTH = 4
"""Rows of the sketch; each counts every hash once more, in another column."""


class CountMin:
    """How often each hash was added: never too low, and seldom much too high.

    A count is too high by more than e / width of all additions (2.6 in a million with 2 ** 20
    columns) for one hash in 55 (e ** depth). The order of additions does not matter.
    """

    # Cormode and Muthukrishnan, "An improved data stream summary: the count-min sketch" (2005).

    def __init__(self, width: int = 1 << 20) -> None:
        if width & (width - 1):
            raise ValueError(f"found width {width}; expected a power of two")
        # 32 bits, half the memory of 64, hold the counts of four billion texts.
        self._counts = np.zeros((_DEPTH, width), dtype=np.uint32)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, the same however much was added."""
        return self._counts.nbytes

    def add(self, hashes: Hashes, counts: Counts) -> None:
        """Count hashes uint64[n], int64[n] times each."""
        for row, columns in zip(self._counts, self._columns(hashes), strict=True):
            # Not `row[columns] += counts`, which counts only one of two hashes in a column.
            np.add.at(row, columns, counts.astype(np.uint32))

    def estimate(self, hashes: Hashes) -> Counts:
        """How often hashes uint64[n] were added, int64[n]."""
        found = [
            row[columns] for row, columns in zip(self._counts, self._columns(hashes), strict=True)
        ]
        least: Counts = np.min(found, axis=0).astype(np.int64)
        return least

    def _columns(self, hashes: Hashes) -> list[Hashes]:
        mask = np.uint64(self._counts.shape[1] - 1)
        # Hashed anew for each row, so that two that share a column seldom share another.
        return [rehash(hashes ^ np.uint64(row << 32)) & mask for row in range(_DEPTH)]


class KindSample:
    """Exact counts for a random sample of the distinct hashes, and an estimate of how many
    there are.

    The sample holds the `most` smallest hashes. A hash that is among them at the end was among
    them since it was first added, so its count is complete, in any order of additions. The
    number of kinds is exact below `most`, and has a relative error of 1 / sqrt(most) beyond.
    """

    # The k-minimum-values estimate: Beyer et al., "On synopses for distinct-value estimation
    # under multiset operations" (2007).

    def __init__(self, most: int = 1 << 16) -> None:
        self._most = most
        self.hashes: Hashes = np.zeros(0, dtype=np.uint64)
        self.counts: Counts = np.zeros(0, dtype=np.int64)

    def add(self, hashes: Hashes, counts: Counts) -> None:
        """Count hashes uint64[n], int64[n] times each."""
        if len(self.hashes) == self._most:
            # Larger ones cannot be among the smallest any more.
            low = hashes <= self.hashes[-1]
            hashes, counts = hashes[low], counts[low]
        kinds, places = np.unique(np.concatenate([self.hashes, hashes]), return_inverse=True)
        sums = np.zeros(len(kinds), dtype=np.int64)
        np.add.at(sums, places, np.concatenate([self.counts, counts]))
        self.hashes, self.counts = kinds[: self._most], sums[: self._most]

    @property
    def whole(self) -> bool:
        """Whether the sample holds every distinct hash."""
        return len(self.hashes) < self._most

    @property
    def kinds(self) -> float:
        """How many distinct hashes were added."""
        return (
            len(self.hashes)
            if self.whole
            else (self._most - 1) / (float(self.hashes[-1]) / 2.0**64)
        )
