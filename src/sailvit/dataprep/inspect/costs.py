"""Costs measured when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sailvit.core.bad_records import UNUSABLE
from sailvit.core.records import Source, shards_of
from sailvit.data.processing.processor import Processor


class LazyCosts:
    """Costs of the records that are drawn, so that a few packs of a large source can be planned
    at once.
    """

    def __init__(self, source: Source, processor: Processor) -> None:
        self._source = source
        self._processor = processor
        self._known: dict[int, tuple[int, int]] = {}
        self.shards = shards_of(source)
        """Records per shard."""
        self.unread: Mapping[str, int] = {}
        """Nothing: only records that are drawn are looked at."""

    def __len__(self) -> int:
        return len(self._source)

    def at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Tokens int32[n] and tiles int32[n] of the records at int64[n]; records that cannot be
        read cost nothing.
        """
        found = [self.of(int(position)) for position in positions]
        costs = np.array(found, dtype=np.int32).reshape(-1, 2)
        return costs[:, 0], costs[:, 1]

    def of(self, position: int) -> tuple[int, int]:
        """Tokens, uncut, and tiles of one record."""
        if position not in self._known:
            try:
                self._known[position] = self._processor.cost(self._source[position])
            except UNUSABLE:
                self._known[position] = (0, 0)
        return self._known[position]
