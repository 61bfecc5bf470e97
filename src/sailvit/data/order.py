"""Order as a function: which record is drawn n-th depends on the seed, the stream's name and n alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sailvit.core.errors import DataError
from sailvit.core.seeding import derive_seed

_ROUNDS = 6
_MASK = (1 << 64) - 1


class Draw(NamedTuple):
    """One draw of a stream."""

    source: str
    """Name of the source."""
    nth: int
    """How many draws of that source came before; so `nth // len(source)` is the epoch."""


class Stream:
    """An endless, seeded blend of sources; it holds no state, so any draw can be made again."""

    def __init__(self, sizes: Mapping[str, int], shares: Mapping[str, float], *, seed: int, name: str) -> None:
        if empty := [source for source in shares if not sizes[source]]:
            raise DataError(f"source {empty[0]} has no records; check its path, or leave it out of the mixture")
        total = sum(shares.values())
        self._sizes = sizes
        self._shares = {source: share / total for source, share in shares.items()}
        self._root = derive_seed(seed, name, "order")
        self._seeds: dict[tuple[str, int], int] = {}

    def next(self, drawn: Mapping[str, int]) -> Draw:
        """The draw that follows `drawn` draws per source: of the source that is furthest behind its share."""
        after = sum(drawn.values()) + 1
        source = max(self._shares, key=lambda source: self._shares[source] * after - drawn[source])
        return Draw(source, drawn[source])

    def position(self, draw: Draw) -> int:
        """The record that a draw means: each epoch is its own permutation of the source."""
        size = self._sizes[draw.source]
        epoch, place = divmod(draw.nth, size)
        key = (draw.source, epoch)
        if key not in self._seeds:
            self._seeds[key] = derive_seed(self._root, *key)
        return permute(place, size, self._seeds[key])


def permute(place: int, size: int, seed: int) -> int:
    """Where a seeded permutation of `range(size)` sends `place`, in constant memory.

    A Feistel network permutes the next power of four; values beyond `size` walk on until they fall inside, fewer than
    four times on average. About 5 microseconds.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    while True:
        left, right = place >> half, place & low
        for turn in range(_ROUNDS):
            left, right = right, left ^ (_mix(right + (turn << half) + seed) & low)
        place = (left << half) | right
        if place < size:
            return place


def _mix(value: int) -> int:
    """64 well-stirred bits of an integer (the finalizer of SplitMix64)."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
