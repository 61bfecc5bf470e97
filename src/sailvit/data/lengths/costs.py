"""Costs: tokens and tiles of a source's records, from which packs are planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sailvit.core.bad_records import BadRecord
from sailvit.core.errors import DataError


class Costs(Protocol):
    """What each record takes in a pack, by position."""

    @property
    def shards(self) -> Sequence[int]:
        """Records per shard, in order of position; one number for a source without shards."""

    @property
    def unread(self) -> Mapping[str, int]:
        """Keys of the source's rows that hold a value and are not read, with their records."""

    def __len__(self) -> int:
        """Number of records."""

    def at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Tokens int32[n], placeholders included, and tiles int32[n] of the records at
        int64[n], before any cut.

        A record that could not be measured has 0 of both; `CostTable.bad` and reading the
        record say why.
        """


@dataclass(frozen=True)
class CostTable:
    """Costs held as arrays, in memory or mapped from a file."""

    tokens: NDArray[np.int32]
    """int32[n]: tokens per record, placeholders included."""
    tiles: NDArray[np.int32]
    """int32[n]: tiles per record."""
    shards: Sequence[int] = ()
    """Records per shard; empty: one shard."""
    unread: Mapping[str, int] = field(default_factory=dict)
    """Keys of the source's rows that hold a value and are not read, with their records."""
    firsts: NDArray[np.int32] | None = None
    """int32[n]: position of each record's first token with loss, -1 for bad records; None: not
    known."""
    pairs: NDArray[np.int32] | None = None
    """int32[n]: 1 for captions of one image, else 0; None: not known."""
    bad: tuple[BadRecord, ...] = ()
    """Records that cannot be used; the next start measures them again."""

    def __post_init__(self) -> None:
        if not self.shards:
            object.__setattr__(self, "shards", (len(self.tokens),))
        if sum(self.shards) != len(self.tokens) or len(self.tiles) != len(self.tokens):
            raise DataError(
                f"found {len(self.tokens)} token counts, {len(self.tiles)} tile counts and"
                f" {sum(self.shards)} records in shards; expected one of each per record: index"
                " the source again"
            )

    def __len__(self) -> int:
        return len(self.tokens)

    def at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Tokens int32[n] and tiles int32[n] of the records at int64[n]."""
        return self.tokens[positions], self.tiles[positions]
