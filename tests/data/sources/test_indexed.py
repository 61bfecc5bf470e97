"""Indexed shards under damage, by name, in parts, and of any size."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from many_formats import indexed, opened, tree, write_llava, write_parquet
from small_tokenizers import layout_for

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.data.lengths.measuring import measure
from sailvit.data.processing.processor import Processor
from sailvit.data.shards.manifest import COSTS, ENTRY, MANIFEST, load_manifest
from sailvit.dataprep.prepare.indexing import index, index_config
from sailvit.dataprep.prepare.preparing import PrepareConfig, prepare

FIRST, SECOND = "shard-000000.tar", "shard-000001.tar"


@pytest.fixture
def folder(tmp_path):
    prepare(
        {"set": opened(write_llava(tmp_path / "in"))},
        tmp_path / "out",
        config=PrepareConfig(shard_samples=6),
    )
    return tmp_path / "out"


def fault(source, position: int) -> tuple[str, str]:
    with pytest.raises(DataError) as caught:
        source[position]
    return caught.value.kind, str(caught.value)


def entry(folder, shard: str, row: int) -> np.void:
    return np.load(folder / f"index/{shard}.npy")[row]


def flip(path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_is_the_error_of_one_record(folder):
    found = indexed(folder)
    whole = [found[n] for n in range(12)]
    at = entry(folder, FIRST, 2)
    flip(folder / FIRST, int(at["offset"] + at["size"] // 2))
    kind, text = fault(found, 2)
    assert kind == "crc"
    assert text.startswith(f"{FIRST} at {at['offset']}: ")
    assert [found[n] for n in range(12) if n != 2] == [
        record for n, record in enumerate(whole) if n != 2
    ]


def test_a_cut_shard_gives_what_it_has(folder):
    at = int(entry(folder, FIRST, 4)["offset"])
    os.truncate(folder / FIRST, at + 10)
    found = indexed(folder)
    assert [found[n].id for n in (0, 3, 6)] == ["row-0", "row-3", "row-6"]
    kind, text = fault(found, 4)
    assert kind == "cut shard"
    assert f"ends after {at + 10} of" in text
    assert fault(found, 5)[0] == "cut shard"


def test_a_missing_shard_is_the_error_of_its_records(folder):
    (folder / FIRST).unlink()
    found = indexed(folder)
    assert len(found) == 12
    assert fault(found, 0)[0] == "missing shard"
    assert found[6].id == "row-6"


def test_a_changed_shard_is_known(folder):
    (folder / FIRST).write_bytes((folder / SECOND).read_bytes() * 2)
    assert fault(indexed(folder), 1)[0] == "changed shard"


def test_a_shard_changed_in_place_is_known_by_its_time(folder):
    index(index_config(folder), force=True)
    flip(folder / FIRST, int(entry(folder, FIRST, 2)["offset"]) + 5)
    assert fault(indexed(folder), 2)[0] == "changed shard"


def test_a_shard_that_may_not_be_read_is_named(folder):
    (folder / FIRST).unlink()
    (folder / FIRST).mkdir()
    assert fault(indexed(folder), 0)[0] == "unreadable shard"


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_index_is_named(damage, folder):
    path = folder / f"index/{FIRST}.npy"
    path.unlink() if damage == "missing" else os.truncate(path, 200)
    kind, text = fault(indexed(folder), 5)
    assert kind == "index"
    assert f"index/{FIRST}.npy has no row 5" in text


def test_damaged_parquet_is_known(tmp_path):
    write_parquet(tmp_path / "set")
    index(index_config(tmp_path / "set"))
    path = tmp_path / "set/part-0.parquet"
    content, time = bytearray(path.read_bytes()), path.stat()
    content[content.index(b"\x89PNG") + 40] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(time.st_atime_ns, time.st_mtime_ns))
    kinds = set()
    found = indexed(tmp_path / "set")
    for position in range(8):
        try:
            found[position]
        except DataError as error:
            kinds.add(error.kind)
    assert kinds == {"crc"}
    path.unlink()
    assert fault(found, 0)[0] == "missing shard"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: "[", "is not JSON"),
        (lambda m: json.dumps([]), "version None; this program reads 1"),
        (lambda m: json.dumps({**m, "version": 2}), "version 2; this program reads 1"),
        (lambda m: json.dumps({**m, "samples": "many"}), "does not hold together at samples"),
    ],
)
def test_a_damaged_manifest_is_named(change, said, folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(change(manifest))
    with pytest.raises(DataError, match=said):
        indexed(folder)


def test_names_in_a_manifest_stay_inside(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["shards"][0]["name"] = "../in/rows.jsonl"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="leads out of"):
        indexed(folder)


def test_a_folder_without_manifest_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"sailvit\.json cannot be read.*prepare"):
        indexed(tmp_path)
    with pytest.raises(DataError, match="no `path`"):
        opened(SourceConfig(format="indexed"))


def test_a_part_can_be_read(folder):
    found = indexed(folder, limit=8)
    assert (len(found), found.shards) == (8, (6, 2))
    with pytest.raises(IndexError):
        found[8]
    assert found.place(7) == (SECOND, int(entry(folder, SECOND, 1)["offset"]))


def test_the_fingerprint_follows_the_records_and_not_the_counts(folder, chatml, layout, tmp_path):
    first = indexed(folder).fingerprint
    assert indexed(folder, limit=3).fingerprint != first
    assert indexed(folder, groups=5).fingerprint == first
    prepare({"set": opened(write_llava(tmp_path / "other", 11))}, tmp_path / "b")
    assert indexed(tmp_path / "b").fingerprint != first


@pytest.mark.parametrize("damage", ["missing", "cut", "shape", "object"])
def test_damaged_counts_are_named(damage, tmp_path, chatml, layout):
    processor = Processor(chatml, layout, 64)
    prepare({"set": opened(write_llava(tmp_path / "in"))}, tmp_path / "out", processor=processor)
    path = tmp_path / "out" / COSTS
    match damage:
        case "missing":
            path.unlink()
        case "cut":
            os.truncate(path, 50)
        case "shape":
            np.save(path, np.zeros((2, 3), np.int32))
        case "object":
            np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"source set: .*costs\.npy.*index the folder again"):
        measure("set", indexed(tmp_path / "out"), processor)


def test_the_source_travels_light(folder):
    found = indexed(folder)
    found[3]
    copy = pickle.loads(pickle.dumps(found))
    assert copy[3] == found[3]
    assert len(pickle.dumps(found)) < 5000


BIG = """
import sys, time
from pathlib import Path
import numpy as np
from sailvit.core.recipe import SourceConfig
from sailvit.data.sources import open_source
def own_memory():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("RssAnon"))

before, start = own_memory(), time.process_time()
source = open_source("x", SourceConfig(format="indexed", path=sys.argv[1]), Path())
counts = source.counts(tokenizer="t", layout="l")
took = time.process_time() - start
picked = np.random.default_rng(0).integers(0, len(source), 1000)
total = int(counts[0][picked].sum())
print(len(source), took, own_memory() - before, total)
"""


def test_ten_million_records_open_at_once_and_stay_on_disk(tmp_path):
    records, shards = 10_000_000, 1000
    counts = np.lib.format.open_memmap(
        tmp_path / COSTS, mode="w+", dtype=np.int32, shape=(2, records)
    )
    counts[0] = 7
    counts.flush()
    mark = {"bytes": 1, "crc32": 1}
    each = records // shards
    listed = [
        {"name": f"{n}.tar", "samples": each, "kinds": {"chat": each}, "index": mark, **mark}
        for n in range(shards)
    ]
    named = {
        "tokenizer": "t",
        "layout": "l",
        "tokenizer_values": {},
        "layout_values": {},
        "costs": mark,
    }
    manifest = {
        "version": 1,
        "format": "webdataset",
        "samples": records,
        "shards": listed,
        "measured": named,
    }
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    told = subprocess.run(
        [sys.executable, "-c", BIG, str(tmp_path)], check=True, capture_output=True, text=True
    )
    length, seconds, memory, total = map(float, told.stdout.split())
    assert (length, total) == (records, 7000)
    assert seconds < 1
    assert memory < 10 << 20


def test_entries_are_small_and_named():
    assert ENTRY.itemsize == 41
    assert ENTRY.names == (
        "offset",
        "size",
        "crc32",
        "width",
        "height",
        "images",
        "tiles",
        "text",
        "tokens",
        "kind",
    )


def test_nothing_but_plain_arrays_is_written(folder):
    for name, content in tree(folder).items():
        assert name.endswith((".tar", ".npy", ".json", ".jsonl"))
        if name.endswith(".npy"):
            np.load(folder / name, allow_pickle=False)
            assert content.startswith(b"\x93NUMPY")
    assert load_manifest(folder).made["command"] == "prepare"


def test_the_same_layout_with_other_names_is_the_same(folder, chatml):
    processor = Processor(chatml, layout_for(chatml), 64)
    index(index_config(folder), processor=processor)
    assert len(measure("x", indexed(folder), Processor(chatml, layout_for(chatml), 999))) == 12
