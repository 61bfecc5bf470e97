"""Order as a function: the record that a source's n-th draw means, for many n at once and without storing a shuffle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Seeds = NDArray[np.uint64]

_ROUNDS = 6


class Order:
    """Positions of a source by draw; every epoch is a permutation of its own.

    With a window, an epoch permutes the shards and then shuffles records among each `window` shards in a row, so that
    few shards are open at a time. Memory grows with the number of shards, not of records.
    """

    def __init__(self, shards: Sequence[int], window: int | None, seed: int) -> None:
        self._sizes = np.asarray(shards, dtype=np.int64)
        self._firsts = np.cumsum(self._sizes) - self._sizes
        self._size = int(self._sizes.sum())
        self._window = len(shards) if window is None else min(window, len(shards))
        self._seed = seed
        self._epoch: tuple[int, Integers, Integers] | None = None

    def positions(self, nths: Integers) -> Integers:
        """int64[n]: the record that each of the draws int64[n] of this source means."""
        epochs, places = np.divmod(nths, self._size)
        seeds = stir(epochs.astype(np.uint64) + np.uint64(self._seed))
        if self._window == len(self._sizes):
            return permute(places, self._size, seeds)
        positions = np.empty_like(places)
        for epoch, first in zip(*np.unique(epochs, return_index=True), strict=True):
            here = epochs == epoch
            positions[here] = self._windowed(places[here], int(epoch), seeds[first])
        return positions

    def _windowed(self, places: Integers, epoch: int, seed: np.uint64) -> Integers:
        """Positions of one epoch's places: shuffled inside their window, then looked up in the shard they fall into."""
        shards, ends = self._shuffled_shards(epoch, seed)
        last = np.minimum(np.arange(self._window, len(ends) + self._window, self._window), len(ends)) - 1
        windows = np.searchsorted(ends[last], places, side="right")
        starts = np.append(0, ends[last])
        offsets = permute(
            places - starts[windows],
            starts[windows + 1] - starts[windows],
            stir(windows.astype(np.uint64) + seed + np.uint64(1)),
        )
        within = starts[windows] + offsets
        nearest = np.searchsorted(ends, within, side="right")
        shard = shards[nearest]
        return self._firsts[shard] + within - (ends[nearest] - self._sizes[shard])

    def _shuffled_shards(self, epoch: int, seed: np.uint64) -> tuple[Integers, Integers]:
        """The epoch's order of shards, and how many records there are up to the end of each."""
        if self._epoch is None or self._epoch[0] != epoch:
            shards = permute(np.arange(len(self._sizes)), len(self._sizes), seed)
            self._epoch = epoch, shards, np.cumsum(self._sizes[shards])
        return self._epoch[1:]


def permute(places: Integers, sizes: Integers | int, seeds: Seeds | np.uint64 | int) -> Integers:
    """int64[n]: where a seeded permutation of `range(size)` sends each place; size and seed may differ per place.

    A Feistel network permutes the next power of four; values beyond the size walk on until they fall inside, fewer than
    four times on average. About 0.2 microseconds per place in blocks of a thousand.
    """
    sizes, seeds = np.broadcast_to(sizes, places.shape), np.broadcast_to(np.uint64(seeds), places.shape)
    # frexp gives the bit length; half of it, rounded up, and at least one bit.
    halves = np.maximum(1, (np.frexp((sizes - 1).astype(np.float64))[1] + 1) // 2).astype(np.uint64)
    found, left = places.astype(np.int64), np.arange(len(places))
    while len(left):
        found[left] = _feistel(found[left].astype(np.uint64), halves[left], seeds[left]).astype(np.int64)
        left = left[found[left] >= sizes[left]]
    return found


def stir(values: Seeds) -> Seeds:
    """uint64[n]: 64 well-mixed bits of each value (the finalizer of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _feistel(places: Seeds, halves: Seeds, seeds: Seeds) -> Seeds:
    low = (np.uint64(1) << halves) - np.uint64(1)
    left, right = places >> halves, places & low
    for turn in range(_ROUNDS):
        left, right = right, left ^ (stir(right + (np.uint64(turn) << halves) + seeds) & low)
    return (left << halves) | right
