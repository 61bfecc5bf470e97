"""Damaged shards: what they held is left out and accounted for, nothing is followed or opened that should not be."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import tarfile
from pathlib import Path

import pytest
from damage import (
    RECORDS,
    Outcome,
    costs_of,
    picture,
    put,
    read,
    row,
    write_llava,
    write_parquet,
    write_tars,
)

from sailvit.core.recipe import SourceConfig
from sailvit.data.processing.processor import Processor
from sailvit.data.sources import open_source
from sailvit.dataprep.prepare.preparing import PrepareConfig, prepare


@pytest.fixture(scope="module")
def processor(chatml, layout) -> Processor:
    return Processor(chatml, layout, 160)


def keys(shard: int) -> list[str]:
    """Ids in one of the four shards."""
    return [f"r{number}" for number in range(shard, RECORDS, 4)]


EVERY = sorted(name for shard in range(4) for name in keys(shard))


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    os.truncate(path, 5000)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def overwrite(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        put(tar, "other.jpg", picture(1))
        put(tar, "other.txt", b"another shard")


@pytest.mark.parametrize("pattern", ["set", "set/*"])
@pytest.mark.parametrize(
    ("form", "write", "name", "kind"),
    [
        ("webdataset", write_tars, "gone.tar", "missing shard"),
        ("parquet", write_parquet, "gone.parquet", "damaged shard"),
    ],
)
def test_a_link_that_leads_nowhere_is_listed_among_shards(
    tmp_path, processor, form, write, name, kind, pattern
):
    write(tmp_path / "set")
    (tmp_path / "set" / name).symlink_to(tmp_path / "moved" / name)
    outcome = read(SourceConfig(format=form, path=str(tmp_path / pattern)), processor)
    assert sorted(outcome.ids) == EVERY
    assert outcome.faults == [kind]


def page(path: Path) -> None:
    path.write_bytes(b"<!doctype html><title>404 Not Found</title>" * 400)


@pytest.mark.parametrize(
    ("damage", "kinds"),
    [
        (remove, {"missing shard"}),
        (cut, {"changed shard", "cut shard"}),
        (empty, {"changed shard", "cut shard"}),
        (overwrite, {"changed shard"}),
        (page, {"changed shard", "cut shard"}),
    ],
)
def test_a_shard_that_breaks_while_it_is_used(tmp_path, processor, damage, kinds):
    config = write_tars(tmp_path / "set")
    whole = read(config, processor)
    assert sorted(whole.ids) == EVERY
    outcome = read(
        config,
        processor,
        costs=costs_of(config, processor),
        between=lambda: damage(tmp_path / "set/2.tar"),
    )
    assert outcome.packs == whole.without(*keys(2))
    assert len(outcome.bad) == len(keys(2))
    assert {bad.kind for bad in outcome.bad} <= kinds
    assert {bad.shard for bad in outcome.bad} == {str(tmp_path / "set/2.tar")}
    assert len({bad.offset for bad in outcome.bad}) == len(keys(2))


class Planted:
    """What a pickle would run."""

    def __reduce__(self):
        return os._exit, (17,)


def with_member(name: str, **settings):
    """Adds a member behind a good one, in the middle of a shard."""

    def damage(folder: Path) -> None:
        with tarfile.open(folder / "2.tar", "w") as tar:
            for place, number in enumerate(range(2, RECORDS, 4)):
                put(tar, f"k{number:02d}.jpg", picture(number))
                put(tar, f"k{number:02d}.json", json.dumps(row(number)).encode())
                if place == 3:
                    put(tar, name, **settings)

    return damage


def packed(folder: Path) -> None:
    path = folder / "2.tar"
    path.write_bytes(gzip.compress(path.read_bytes()))


PLANTED = pickle.dumps(Planted())
SHARDS = {
    "link to a file outside": (
        with_member("x.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "link",
        [],
    ),
    "link beside": (with_member("x.jpg", type=tarfile.SYMTYPE, linkname="k02.jpg"), "link", []),
    "hard link": (with_member("x.jpg", type=tarfile.LNKTYPE, linkname="k02.jpg"), "link", []),
    "character device": (
        with_member("x.jpg", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        "device",
        [],
    ),
    "block device": (with_member("x.jpg", type=tarfile.BLKTYPE), "device", []),
    "pipe": (with_member("x.jpg", type=tarfile.FIFOTYPE), "device", []),
    "name that leads out": (with_member("../x.jpg", content=picture(1)), "unsafe name", []),
    "absolute name": (with_member("/tmp/x.jpg", content=picture(1)), "unsafe name", []),
    "pickle": (with_member("k14.pkl", content=PLANTED), "pickle", []),
    "torch file": (with_member("k14.pt", content=PLANTED), "pickle", []),
    "key that came before": (with_member("k02.jpg", content=picture(1)), "duplicate", []),
    "cut": (lambda folder: cut(folder / "2.tar"), "cut shard", None),
    "empty": (lambda folder: empty(folder / "2.tar"), None, keys(2)),
    "a web page": (lambda folder: page(folder / "2.tar"), "cut shard", keys(2)),
    "compressed": (packed, "cut shard", keys(2)),
    "a dead link": (
        lambda folder: (remove(folder / "2.tar"), (folder / "2.tar").symlink_to("nowhere")),
        None,
        keys(2),
    ),
}


@pytest.mark.parametrize(("damage", "kind", "gone"), SHARDS.values(), ids=SHARDS)
def test_a_shard_that_was_damaged_before(tmp_path, processor, damage, kind, gone):
    config = write_tars(tmp_path / "set")
    damage(tmp_path / "set")
    outcome = read(config, processor)
    found = sorted(outcome.ids)
    if gone is None:
        assert set(found) >= set(EVERY) - set(keys(2))
        assert found == sorted(set(found) & set(EVERY))
        assert len(found) < len(EVERY)
    else:
        assert found == sorted(set(EVERY) - set(gone))
    assert not outcome.bad
    assert kind is None or kind in " ".join(outcome.faults)


MEMBERS = {
    "JSON cut": ("json", lambda content: content[:20], "text"),
    "JSON not UTF-8": ("json", lambda content: b"\xff\xfe" + content, "text"),
    "JSON is a list": ("json", lambda content: b"[1]", "text"),
    "JSON is a pickle": ("json", lambda content: PLANTED, "text"),
    "JSON empty": ("json", lambda content: b"", "text"),
    "no JSON": ("json", lambda content: None, "turns"),
    "no image": ("jpg", lambda content: None, "marks"),
    "image cut": ("jpg", lambda content: content[:-40], "image"),
    "image is a pickle": ("jpg", lambda content: PLANTED, "image"),
    "image empty": ("jpg", lambda content: b"", "image"),
}


@pytest.mark.parametrize(("ending", "change", "kind"), MEMBERS.values(), ids=MEMBERS)
def test_a_damaged_member(tmp_path, processor, ending, change, kind):
    config = write_tars(tmp_path / "set")
    costs, whole = costs_of(config, processor), read(config, processor)
    with tarfile.open(tmp_path / "set/2.tar", "w") as tar:
        for number in range(2, RECORDS, 4):
            files = {"jpg": picture(number), "json": json.dumps(row(number)).encode()}
            if number == 10:
                files[ending] = change(files[ending])
            for name, content in files.items():
                if content is not None:
                    put(tar, f"k{number:02d}.{name}", content)
    outcome = read(config, processor, costs=costs)
    assert outcome.packs == whole.without("r10")
    assert [(bad.kind, bad.position) for bad in outcome.bad] == [(kind, 22)]


class Prepared:
    """A prepared folder of four shards."""

    def __init__(self, folder: Path, processor) -> None:
        source = open_source("set", write_llava(folder / "in"), Path.cwd())
        self.folder, self.processor = folder / "out", processor
        prepare(
            {"set": source},
            self.folder,
            config=PrepareConfig(shard_samples=10),
            processor=processor,
        )
        self.config = SourceConfig(format="indexed", path=str(self.folder))
        self.shards = sorted(self.folder.rglob("*.tar"))
        self.costs = costs_of(self.config, processor)
        self.whole = read(self.config, processor, costs=self.costs)
        assert len(self.whole.ids) == RECORDS

    def read(self) -> Outcome:
        return read(self.config, self.processor, costs=self.costs)

    def keys(self, shard: int) -> list[str]:
        source = open_source("set", self.config, Path.cwd())
        return [source[position].id for position in range(10 * shard, 10 * shard + 10)]


@pytest.fixture
def prepared(tmp_path, processor) -> Prepared:
    return Prepared(tmp_path, processor)


def test_every_flipped_bit_is_caught_by_its_checksum(prepared):
    path = prepared.shards[1]
    names, state, content = prepared.keys(1), path.stat(), path.read_bytes()
    for share in (0.1, 0.35, 0.6, 0.85):
        at = int(len(content) * share)
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        outcome = prepared.read()
        (bad,) = outcome.bad
        assert bad.kind == "crc"
        assert outcome.packs == prepared.whole.without(names[bad.position - 10])


def unindexed(shard: Path) -> None:
    for path in shard.parent.rglob(f"*{shard.stem}*"):
        if path.is_file() and path != shard:
            path.unlink()


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (remove, "missing shard"),
        (cut, "cut shard"),
        (empty, "cut shard"),
        (page, "cut shard"),
        (unindexed, "index"),
    ],
)
def test_a_damaged_prepared_shard(prepared, damage, kind):
    names = prepared.keys(1)
    damage(prepared.shards[1])
    outcome = prepared.read()
    assert {bad.kind for bad in outcome.bad} == {kind}
    lost = [names[bad.position - 10] for bad in outcome.bad]
    assert set(lost) <= set(names)
    assert outcome.packs == prepared.whole.without(*lost)


def test_a_flipped_bit_in_parquet_takes_its_row_group(tmp_path, processor):
    pytest.importorskip("pyarrow")
    config = write_parquet(tmp_path)
    costs, whole = costs_of(config, processor), read(config, processor)
    path = tmp_path / "a.parquet"
    content = path.read_bytes()
    at = content.index(picture(14)) + 100
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    outcome = read(config, processor, costs=costs)
    assert outcome.packs == whole.without(*(f"r{number}" for number in range(10, 20)))
    assert {bad.kind for bad in outcome.bad} == {"damaged shard"}
