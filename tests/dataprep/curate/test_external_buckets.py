"""Rows in buckets: nothing lost, equal keys together, memory bounded; and the account of what was dropped."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import BROKEN, Planted, record

from sailvit.dataprep.curate.curating import curate
from sailvit.dataprep.curate.drop_report import Drop, DropReport
from sailvit.dataprep.curate.external_buckets import ExternalBuckets
from sailvit.dataprep.curate.repeats import ROW, Repeats
from sailvit.dataprep.curate.settings import Curation
from sailvit.dataprep.records.words import rehash

PAIR = np.dtype([("key", "u8"), ("number", "i8")])


def rows(keys: np.ndarray, start: int = 0) -> np.ndarray:
    made = np.zeros(len(keys), PAIR)
    made["key"], made["number"] = keys, np.arange(start, start + len(keys))
    return made


@given(st.lists(st.integers(0, 40), max_size=200), st.integers(1, 50), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_buckets_hold_every_row_once_and_equal_keys_together(
    tmp_path_factory, numbers: list, most: int, blocks: int
):
    keys = rehash(np.array(numbers, dtype=np.uint64))
    held = ExternalBuckets(PAIR, tmp_path_factory.mktemp("s"), most=most)
    at = 0
    for block in np.array_split(keys, blocks):
        held.add(block, rows(block, at))
        at += len(block)
    buckets = list(held.buckets())
    assert sorted(int(n) for bucket in buckets for n in bucket["number"]) == list(range(len(keys)))
    places: dict[int, set[int]] = {}
    for index, bucket in enumerate(buckets):
        for key in bucket["key"].tolist():
            places.setdefault(key, set()).add(index)
    assert all(len(where) == 1 for where in places.values())
    again = list(held.buckets())
    assert all(np.array_equal(one, other) for one, other in zip(buckets, again, strict=True))


def test_few_rows_touch_no_disk(tmp_path: Path):
    buckets = ExternalBuckets(PAIR, tmp_path / "rows")
    keys = rehash(np.arange(100, dtype=np.uint64))
    buckets.add(keys, rows(keys))
    assert len(next(buckets.buckets())) == 100
    assert not (tmp_path / "rows").exists()


def peak_of_repeats(folder: Path, count: int) -> int:
    """Bytes held at most while `count` different hashes are collected and compared."""
    repeats = Repeats(folder, distance=1, most=4000)
    tracemalloc.start()
    for start in range(0, count, 500):
        block = np.zeros(500, ROW)
        positions = np.arange(start, start + 500, dtype=np.uint64)
        block["high"], block["low"] = rehash(positions), rehash(positions + np.uint64(1 << 40))
        block["position"], block["total"] = positions, 1
        repeats.add(block)
    assert len(repeats.find()) == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [path.name for path in folder.iterdir()] == ["rows"]
    return peak


def test_memory_of_a_search_does_not_grow_with_the_hashes(tmp_path: Path):
    # The lower of two, as other threads of the test runner allocate too.
    few, many = (
        min(peak_of_repeats(tmp_path / f"{count}-{turn}", count) for turn in range(2))
        for count in (6000, 18_000)
    )
    assert many < 1.5 * few


class Endless:
    """Any number of records, none of which is held."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.fingerprint = str(count)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int):
        return record(position, f"this is the caption of number {position}")


def test_memory_of_a_curation_is_a_byte_per_record():
    settings = Curation(filters=[{"length": {"at_most": 33}}], resampling={"n": 2, "width": 1024})
    peaks = []
    for count in (500, 2000):
        tracemalloc.start()
        curate(Endless(count), settings)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Beside the byte per record the sample of kinds fills up: 16 bytes and some copies per different n-gram.
    assert peaks[1] - peaks[0] < 1500 * (1 + 200)


def test_a_ledger_counts_and_names_the_first_of_every_reason():
    drops = DropReport(
        Planted([record(i, f"text {i}") for i in range(20)]), ["unreadable", "one", "two"]
    )
    for position in range(8):
        drops.enter(1, Drop(position, "too odd" if position % 2 else "too even", str(position)))
    drops.enter(2, Drop(9, "late", "9"))
    first, second, third = drops.accounts()
    assert (first["seen"], first["dropped"], first["examples"]) == (20, 0, [])
    assert (second["seen"], second["kept"], second["why"]) == (
        20,
        12,
        {"too even": 4, "too odd": 4},
    )
    assert [example["position"] for example in second["examples"]] == [0, 2, 4, 6, 1, 3, 5, 7]
    assert second["examples"][0] == {
        "position": 0,
        "why": "too even",
        "found": "0",
        "id": "0",
        "text": "text 0",
    }
    assert (third["seen"], third["kept"]) == (12, 11)


def test_a_ledger_names_five_and_also_those_that_cannot_be_read_again():
    drops = DropReport(Planted([BROKEN] * 9), ["unreadable"])
    for position in range(9):
        drops.enter(0, Drop(position, "broken row", "the record is broken"))
    (account,) = drops.accounts()
    assert account["dropped"] == 9
    assert account["examples"] == [
        {"position": position, "why": "broken row", "found": "the record is broken"}
        for position in range(5)
    ]


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_records(count: int):
    settings = Curation(filters=[{"duplicate": {}}, {"near_duplicate": {}}], resampling={})
    curated = curate(Planted([record(0, "a caption")] * count), settings)
    assert curated.positions.tolist() == list(range(count))
    assert curated.report["ngrams"]["kept"] == count
