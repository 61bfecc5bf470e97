"""Which hashes come again: equal ones, and those that differ by a few bits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sailvit.dataprep.curate.external_buckets import ExternalBuckets, Rows
from sailvit.dataprep.records.hashes import BITS, Hash
from sailvit.dataprep.records.words import Hashes, stir

ROW = np.dtype([("high", "u8"), ("low", "u8"), ("position", "i8"), ("total", "u2")])
"""A hash, the record it comes from, and how many hashes that record has."""
_CLASS = np.dtype([("high", "u8"), ("low", "u8"), ("position", "i8"), ("number", "i8")])
"""A hash that occurs, the first record that has it, and its number."""
REPEAT = np.dtype([("position", "i8"), ("first", "i8"), ("total", "u2")])
"""A hash that was there before: its record, the earlier one, and how many hashes its record
has."""

_WINDOW = 256
"""Most hashes that share bits which each is compared with; more of them are pictures that show
next to nothing."""


class Repeats:
    """Collects hashes of records in any order, and finds those that an earlier record has too.

    Memory is bounded: 26 bytes per hash lie in `folder` once there are more than a million, and
    32 more during a search for near copies; what grows is the number of copies found. Near
    copies are found without comparing all pairs: of `distance` + 4 bands of bits in three
    groups, two of one group are equal in any two hashes that differ by at most `distance` bits,
    so only hashes that share such a pair are compared.
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

        A near copy of a near copy is none, unless it is near to the first: chains of small
        steps are not followed.
        """
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
        """Per bucket: rows sorted by hash and position, the first row of every hash, and where
        those stand.
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
        """For every hash that is near to an earlier one: the number of the hash, and the
        earlier record.
        """
        near: dict[tuple[int, int], set[tuple[int, int]]] = defaultdict(set)
        for index, (high, low) in enumerate(_masks(self._distance)):
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
    """The rows of one record, of type `ROW`."""
    return np.array([(high, low, position, len(hashes)) for high, low in hashes], dtype=ROW)


def repeated_records(repeats: Rows) -> Iterator[tuple[int, int]]:
    """Records all of whose hashes an earlier record has, each with the first of those; by
    position.
    """
    positions, starts, counts = np.unique(
        repeats["position"], return_index=True, return_counts=True
    )
    whole = counts == repeats["total"][starts]
    yield from zip(positions[whole].tolist(), repeats["first"][starts][whole].tolist(), strict=True)


def _near_pairs(
    classes: Rows, keys: Hashes, distance: int
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Pairs of (position, number), the earlier first, of hashes with equal key and few
    different bits.
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
    """The bits of every pair of bands that belong to one group, as high and low half."""
    edges = np.linspace(0, BITS, distance + 5).round().astype(int).tolist()
    bands = [(1 << end) - (1 << start) for start, end in pairwise(edges)]
    for group in range(3):
        for one, other in combinations(bands[group::3], 2):
            yield (one | other) >> 64, (one | other) & (2**64 - 1)


def _masked(rows: Rows, high: int, low: int) -> Hashes:
    return stir(stir(rows["high"] & np.uint64(high)) ^ (rows["low"] & np.uint64(low)))


def _key(rows: Rows) -> Hashes:
    return stir(stir(rows["high"]) ^ rows["low"])
