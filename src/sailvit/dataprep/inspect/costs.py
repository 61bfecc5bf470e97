"""Costs of records, measured when they are first needed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sailvit.core.bad_records import UNUSABLE
from sailvit.core.records import Source, shards_of
from sailvit.data.processing.processor import Processor


class LazyCosts:
    """Measures only records that are drawn, so that a few packs of a large source are planned
    without reading all of it.
    """

    def __init__(self, source: Source, processor: Processor) -> None:
        self._source = source
        self._processor = processor
        self._known: dict[int, tuple[int, int]] = {}
        self.shards = shards_of(source)
        """Records per shard."""
        self.unread: Mapping[str, int] = {}
        """Always empty: unread keys are counted only where all records are measured."""

    def __len__(self) -> int:
        return len(self._source)

    def at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Tokens int32[n] and tiles int32[n] of the records at int64[n]; records that cannot be
        read cost 0.
        """
        found = [self.of(int(position)) for position in positions]
        costs = np.array(found, dtype=np.int32).reshape(-1, 2)
        return costs[:, 0], costs[:, 1]

    def of(self, position: int) -> tuple[int, int]:
        """Tokens and tiles of one record before it is cut to a pack's length."""
        if position not in self._known:
            try:
                self._known[position] = self._processor.cost(self._source[position])
            except UNUSABLE:
                self._known[position] = (0, 0)
        return self._known[position]
