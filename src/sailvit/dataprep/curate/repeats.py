"""Finds copies by hashes: equal ones, and those that differ by a few bits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sailvit.dataprep.curate.external_buckets import ExternalBuckets, Rows
from sailvit.dataprep.records.hashes import BITS, Hash
from sailvit.dataprep.records.words import Hashes, rehash

ROW = np.dtype([("high", "u8"), ("low", "u8"), ("position", "i8"), ("total", "u2")])
"""A hash, the record it comes from, and how many hashes that record has."""
_CLASS = np.dtype([("high", "u8"), ("low", "u8"), ("position", "i8"), ("number", "i8")])
"""A distinct hash, the first record that has it, and a number for the hash."""
REPEAT = np.dtype([("position", "i8"), ("first", "i8"), ("total", "u2")])
"""A hash that an earlier record has too: its record, the earlier record, and how many hashes
its record has."""

_WINDOW = 256
"""Of the hashes that share its bits, how many neighbours each is compared with. More than that
share bits only where pictures show next to nothing."""


class Repeats:
    """Collects hashes of records in any order, and finds those that an earlier record has too.

    Memory is bounded but for the copies that are found: once there are more than a million
    hashes, they go to `folder` with 26 bytes each, and 32 more during a search for near copies.
    Near copies are found without comparing all pairs: only hashes that agree in one of the
    masks of `_masks` are compared.
    """

    def __init__(self, folder: Path, *, distance: int = 0, most: int = 1 << 20) -> None:
        self._folder = folder
        self._distance = distance
        self._most = most
        self._rows = ExternalBuckets(ROW, folder / "rows", most=most)

    def add(self, rows: Rows) -> None:
        """Take rows of type `ROW`."""
        self._rows.add(_key(rows), rows)

    def find(self) -> Rows:
        """The hashes that an earlier record has too, of type `REPEAT`, by position.

        A near copy of a near copy counts only if it is near to the first one too.
        """
        # Chains of small steps would connect pictures that look nothing alike.
        led = self._leaders() if self._distance else {}
        leaders = np.array(list(led.items()), dtype=np.int64).reshape(-1, 2)
        found, number = [np.zeros(0, REPEAT)], 0
        for rows, classes, starts in self._classes():
            lengths = np.diff(np.append(starts, len(rows)))
            firsts = classes["position"].copy()
            near = leaders[(leaders[:, 0] >= number) & (leaders[:, 0] < number + len(classes))]
            firsts[near[:, 0] - number] = near[:, 1]
            first = np.repeat(firsts, lengths)
            again = rows["position"] > first
            repeats = np.zeros(int(again.sum()), REPEAT)
            repeats["position"], repeats["total"] = rows["position"][again], rows["total"][again]
            repeats["first"] = first[again]
            found.append(repeats)
            number += len(classes)
        every = np.concatenate(found)
        return every[np.lexsort((every["first"], every["position"]))]

    def _classes(self) -> Iterator[tuple[Rows, Rows, NDArray[np.int64]]]:
        """Per bucket: rows sorted by hash and position, the first row of every hash, and the
        indices of those.
        """
        for bucket in self._rows.buckets():
            rows = bucket[np.lexsort((bucket["position"], bucket["low"], bucket["high"]))]
            new = np.ones(len(rows), dtype=bool)
            new[1:] = (rows["high"][1:] != rows["high"][:-1]) | (
                rows["low"][1:] != rows["low"][:-1]
            )
            starts = np.flatnonzero(new)
            yield rows, rows[starts], starts

    def _leaders(self) -> dict[int, int]:
        """For every hash that is near to an earlier one: its number, and the earlier record."""
        near: dict[tuple[int, int], set[tuple[int, int]]] = defaultdict(set)
        for index, (high, low) in enumerate(_masks(self._distance)):
            # One mask after the other, so that the disk holds the buckets of one alone.
            buckets = ExternalBuckets(_CLASS, self._folder / f"bands{index}", most=self._most)
            number = 0
            for _, firsts, _ in self._classes():
                classes = np.zeros(len(firsts), _CLASS)
                for field in ("high", "low", "position"):
                    classes[field] = firsts[field]
                classes["number"] = np.arange(number, number + len(firsts))
                number += len(firsts)
                buckets.add(_masked(classes, high, low), classes)
            for bucket in buckets.buckets():
                for before, after in _near_pairs(
                    bucket, _masked(bucket, high, low), self._distance
                ):
                    near[after].add(before)
            buckets.clear()
        leaders: dict[int, int] = {}
        # By position: whether an earlier record leads is known before its copies are looked at.
        for position, number in sorted(near):
            earlier = [
                place
                for place, other in near[position, number]
                if other not in leaders and place < position
            ]
            if earlier:
                leaders[number] = min(earlier)
        return leaders


def rows_of(position: int, hashes: Sequence[Hash]) -> Rows:
    """One row of type `ROW` per hash of a record."""
    return np.array([(high, low, position, len(hashes)) for high, low in hashes], dtype=ROW)


def repeated_records(repeats: Rows) -> Iterator[tuple[int, int]]:
    """Records all of whose hashes occurred in earlier records, each with the first of those
    records; in order of position.
    """
    positions, starts, counts = np.unique(
        repeats["position"], return_index=True, return_counts=True
    )
    whole = counts == repeats["total"][starts]
    yield from zip(positions[whole].tolist(), repeats["first"][starts][whole].tolist(), strict=True)


def _near_pairs(
    classes: Rows, keys: Hashes, distance: int
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Pairs of (position, number), the earlier first, of hashes that have equal keys and differ
    by at most `distance` bits.
    """
    order = np.lexsort((classes["low"], classes["high"], keys))
    classes, keys = classes[order], keys[order]
    for step in range(1, _WINDOW + 1):
        pairs = np.flatnonzero(keys[step:] == keys[:-step])
        if not len(pairs):
            return
        one, other = classes[pairs], classes[pairs + step]
        bits = np.bitwise_count(one["high"] ^ other["high"]) + np.bitwise_count(
            one["low"] ^ other["low"]
        )
        for a, b in zip(
            one[bits <= distance].tolist(), other[bits <= distance].tolist(), strict=True
        ):
            before, after = sorted((a[2:], b[2:]))
            yield before, after


def _masks(distance: int) -> Iterator[Hash]:
    """Masks, as high and low half, of which at least one hides the difference of any two hashes
    that differ by at most `distance` bits.
    """
    # The bits are cut into `distance` + 4 bands, in three groups. Differing bits spoil at most
    # `distance` bands, so four are equal, and two of those are in the same group: one mask per
    # pair of bands in a group is enough.
    edges = np.linspace(0, BITS, distance + 5).round().astype(int).tolist()
    bands = [(1 << end) - (1 << start) for start, end in pairwise(edges)]
    for group in range(3):
        for one, other in combinations(bands[group::3], 2):
            yield (one | other) >> 64, (one | other) & (2**64 - 1)


def _masked(rows: Rows, high: int, low: int) -> Hashes:
    return rehash(rehash(rows["high"] & np.uint64(high)) ^ (rows["low"] & np.uint64(low)))


def _key(rows: Rows) -> Hashes:
    return rehash(rehash(rows["high"]) ^ rows["low"])
