"""Prepared tars: the same records, the same bytes however they came to be, and readable by others."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile

import numpy as np
import pytest
from many_formats import (
    WRITERS,
    indexed,
    opened,
    picture,
    tree,
    with_bytes,
    write_captions,
    write_llava,
)
from small_tokenizers import layout_for

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Record, Turn
from sailvit.data.lengths.measuring import measure
from sailvit.data.processing.images import load_image
from sailvit.data.processing.processor import Processor
from sailvit.data.shards.manifest import ENTRY, load_manifest
from sailvit.dataprep.prepare import preparing
from sailvit.dataprep.prepare.checking import check
from sailvit.dataprep.prepare.folders import read_bad
from sailvit.dataprep.prepare.preparing import PrepareConfig, ShardWriter, prepare

FIVE = PrepareConfig(shard_samples=5)


@pytest.fixture(scope="module")
def processor(chatml) -> Processor:
    return Processor(chatml, layout_for(chatml, max_tiles=4), 64)


@pytest.mark.parametrize("reader", ["indexed", "webdataset"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_comes_back_as_it_was(name, reader, tmp_path):
    source = opened(WRITERS[name](tmp_path / "in"))
    manifest = prepare({"set": source}, tmp_path / "out", config=FIVE)
    back = opened(SourceConfig(format=reader, path=str(tmp_path / "out")))
    assert manifest.samples == len(back) == len(source)
    for position in range(len(source)):
        expected, found = with_bytes(source[position]), back[position]
        assert (found.id, found.turns, found.kind) == (expected.id, expected.turns, expected.kind)
        for before, after in zip(expected.images, found.images, strict=True):
            if isinstance(before, bytes):
                assert after == before
            else:
                assert np.array_equal(load_image(after), load_image(before))


def test_a_file_name_that_is_no_utf8_keeps_its_record(tmp_path):
    (tmp_path / "in").mkdir()
    for ending, content in (("png", picture(1)), ("txt", b"a cat")):
        name = os.fsdecode(f"caf\xe9.{ending}".encode("latin-1"))
        (tmp_path / "in" / name).write_bytes(content)
    sources = {"set": opened(SourceConfig(format="folder", path=str(tmp_path / "in")))}
    assert check(sources).bad == {}
    assert prepare(sources, tmp_path / "out").bad == 0
    assert indexed(tmp_path / "out")[0].id == r"caf\udce9.png"


def test_tars_are_plain(tmp_path):
    prepare({"set": opened(write_llava(tmp_path / "in"))}, tmp_path / "out", config=FIVE)
    listed = subprocess.run(
        ["tar", "tf", tmp_path / "out/shard-000000.tar"], check=True, capture_output=True, text=True
    ).stdout.split()
    assert listed[:4] == ["000000000.json", "000000001.jpg", "000000001.json", "000000002.0.webp"]
    with tarfile.open(tmp_path / "out/shard-000000.tar") as tar:
        assert all((m.mtime, m.uid, m.isfile()) == (0, 0, True) for m in tar.getmembers())
        row = json.load(tar.extractfile("000000001.json"))
    assert set(row) == {"id", "kind", "messages"}
    assert "é".encode() in (tmp_path / "out/shard-000000.tar").read_bytes()


def test_several_images_are_numbered_and_other_kinds_become_png(tmp_path):
    (tmp_path / "a.gif").write_bytes(picture(1, "GIF"))
    shown = (tmp_path / "a.gif", picture(2, "JPEG"))
    source = [Record("a", (Turn("user", "<image><image>?"), Turn("assistant", "b")), shown)]
    prepare({"set": Listed(source)}, tmp_path / "out")
    with tarfile.open(tmp_path / "out/shard-000000.tar") as tar:
        assert tar.getnames() == ["000000000.0.png", "000000000.1.jpg", "000000000.json"]
    found = indexed(tmp_path / "out")[0].images
    assert np.array_equal(load_image(found[0]), load_image(shown[0]))


class Listed(list):
    """Records in a list."""

    fingerprint = "listed"


def test_the_index_tells_sizes_kinds_and_counts(processor, tmp_path):
    source = opened(write_llava(tmp_path / "in"))
    prepare(
        {"set": source},
        tmp_path / "out",
        config=PrepareConfig(shard_samples=20),
        processor=processor,
    )
    entries = np.load(tmp_path / "out/index/shard-000000.tar.npy", allow_pickle=False)
    assert entries.dtype == ENTRY
    assert entries["images"].tolist() == [n % 3 for n in range(12)]
    assert (entries["width"].tolist()[:2], entries["height"].tolist()[:2]) == ([0, 9], [0, 7])
    costs = [processor.cost(source[n]) for n in range(12)]
    assert list(zip(entries["tokens"].tolist(), entries["tiles"].tolist(), strict=True)) == costs
    assert (entries["text"] == entries["tokens"] - 2 * entries["tiles"]).all()
    mark = load_manifest(tmp_path / "out").shards[0]
    assert mark.kinds == {"chat": 9, "ocr": 3}
    assert [list(mark.kinds)[k] for k in entries["kind"]] == [source[n].kind for n in range(12)]


def test_costs_come_from_the_index(processor, tmp_path):
    source = opened(write_llava(tmp_path / "in"))
    prepare({"set": source}, tmp_path / "out", config=FIVE, processor=processor)
    whole, found = (
        measure("set", source, processor),
        measure("set", indexed(tmp_path / "out"), processor),
    )
    assert np.array_equal(whole.tokens, found.tokens)
    assert np.array_equal(whole.tiles, found.tiles)
    assert found.shards == (5, 5, 2)
    assert len(measure("set", indexed(tmp_path / "out", limit=7), processor)) == 7


def test_another_tokenizer_or_layout_is_refused(processor, chatml, tmp_path):
    prepare({"set": opened(write_llava(tmp_path / "in"))}, tmp_path / "out", processor=processor)
    other = Processor(chatml, layout_for(chatml, max_tiles=6), 64)
    with pytest.raises(
        DataError, match=r"source set: .*layout .*max_tiles 4.*sailvit data index DIR --recipe"
    ):
        measure("set", indexed(tmp_path / "out"), other)


def test_without_counts_they_are_measured(processor, tmp_path):
    source = opened(write_llava(tmp_path / "in"))
    prepare({"set": source}, tmp_path / "out")
    assert not (tmp_path / "out/costs.npy").exists()
    assert np.array_equal(
        measure("x", indexed(tmp_path / "out"), processor).tokens,
        measure("x", source, processor).tokens,
    )


def test_the_length_of_shards_can_be_given_in_bytes(tmp_path):
    source = opened(write_llava(tmp_path / "in", 60))
    manifest = prepare({"set": source}, tmp_path / "out", config=PrepareConfig(shard_bytes=8_000))
    assert len(manifest.shards) > 2
    assert sum(shard.samples for shard in manifest.shards) == 60


@pytest.fixture(scope="module")
def reference(tmp_path_factory, processor):
    folder = tmp_path_factory.mktemp("reference")
    config = write_llava(folder / "in", 23, bad=(4, 11, 22))
    prepare({"set": opened(config)}, folder / "out", config=FIVE, processor=processor)
    return config, tree(folder / "out")


def test_processes_write_the_same_bytes(reference, processor, tmp_path):
    config, expected = reference
    prepare({"set": opened(config)}, tmp_path / "out", config=FIVE, processor=processor, workers=2)
    assert tree(tmp_path / "out") == expected


@pytest.mark.parametrize("survivors", [0, 1, 3])
def test_a_killed_run_goes_on_where_it_stopped(
    survivors, reference, processor, tmp_path, monkeypatch
):
    config, expected = reference
    written = []

    class Dying(ShardWriter):
        def write(self, shard):
            if len(written) == survivors:
                (self.out / f"{shard.name}.part").write_bytes(b"half a shard")
                raise KeyboardInterrupt
            written.append(shard.name)
            return super().write(shard)

    monkeypatch.setattr(preparing, "ShardWriter", Dying)
    with pytest.raises(KeyboardInterrupt):
        prepare({"set": opened(config)}, tmp_path / "out", config=FIVE, processor=processor)
    monkeypatch.undo()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    assert len(times) == survivors
    prepare({"set": opened(config)}, tmp_path / "out", config=FIVE, processor=processor)
    assert tree(tmp_path / "out") == expected
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_a_run_killed_while_it_completes_does_so_later(reference, processor, tmp_path, monkeypatch):
    config, expected = reference

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(preparing, "complete", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare({"set": opened(config)}, tmp_path / "out", config=FIVE, processor=processor)
    monkeypatch.undo()
    prepare({"set": opened(config)}, tmp_path / "out", config=FIVE, processor=processor)
    assert tree(tmp_path / "out") == expected


def test_a_finished_folder_is_left_alone(reference, processor, tmp_path):
    config, _ = reference
    first = prepare({"set": opened(config)}, tmp_path / "out", config=FIVE, processor=processor)
    (tmp_path / "out/shard-000000.tar").unlink()
    assert (
        prepare({"set": opened(config)}, tmp_path / "out", config=FIVE, processor=processor)
        == first
    )
    with pytest.raises(DataError, match="already holds shards"):
        prepare(
            {"set": opened(config)},
            tmp_path / "out",
            config=PrepareConfig(shard_samples=6),
            processor=processor,
        )


def test_other_folders_are_not_written_into(tmp_path, monkeypatch):
    source = {"set": opened(write_llava(tmp_path / "in"))}
    with pytest.raises(DataError, match="expected an empty folder"):
        prepare(source, tmp_path / "in")
    monkeypatch.setattr(preparing, "complete", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(source, tmp_path / "out")
    monkeypatch.undo()
    with pytest.raises(DataError, match="unfinished preparation"):
        prepare(source, tmp_path / "out", config=FIVE)


def test_bad_records_are_listed_and_left_out(reference):
    _, files = reference
    bad = [json.loads(line) for line in files["bad.jsonl"].splitlines()]
    assert [(b["source"], b["position"], b["id"], b["kind"]) for b in bad] == [
        ("set", n, f"row-{n}", "missing file") for n in (4, 11, 22)
    ]
    manifest = json.loads(files["sailvit.json"])
    assert (manifest["samples"], manifest["bad"]) == (20, 3)


def test_damaged_images_are_found_by_their_header_or_by_decoding(tmp_path):
    cut = picture(3)[:-30]
    asked = (Turn("user", "<image>?"), Turn("assistant", "b"))
    source = Listed(
        [Record(str(n), asked, (image,)) for n, image in enumerate([b"<html>", cut, picture(1)])]
    )
    assert prepare({"set": source}, tmp_path / "header").bad == 1
    assert (
        prepare({"set": source}, tmp_path / "decoded", config=PrepareConfig(decode=True)).bad == 2
    )


@pytest.mark.parametrize(
    ("turns", "images"),
    [
        ((), ()),
        ((Turn("user", "<image>?"), Turn("assistant", "b")), ()),
        ((Turn("user", "\ud800"),), ()),
    ],
)
def test_what_could_not_be_read_back_is_not_written(turns, images, tmp_path):
    manifest = prepare({"set": Listed([Record("a", turns, images)])}, tmp_path / "out")
    assert (manifest.samples, manifest.bad, manifest.shards) == (0, 1, [])
    assert sorted(tree(tmp_path / "out")) == ["bad.jsonl", "sailvit.json"]


def test_records_of_several_sources_keep_their_source_in_their_id(tmp_path):
    sources = {
        "a": opened(write_llava(tmp_path / "a")),
        "b": opened(write_captions(tmp_path / "b")),
    }
    prepare(sources, tmp_path / "out", config=FIVE)
    found = indexed(tmp_path / "out")
    assert [found[n].id for n in (0, 11, 12, 14)] == ["a/row-0", "a/row-11", "b/0", "b/2"]
    assert load_manifest(tmp_path / "out").made["sources"][1]["records"] == 3
    keys = set()
    for path in (tmp_path / "out").glob("*.tar"):
        with tarfile.open(path) as tar:
            keys |= {name.split(".")[0] for name in tar.getnames()}
    assert len(keys) == 15


def test_progress_ends_with_all_records(tmp_path):
    told = []
    prepare(
        {"set": opened(write_llava(tmp_path / "in"))},
        tmp_path / "out",
        config=FIVE,
        progress=lambda *n: told.append(n),
    )
    assert told == [(5, 12), (10, 12), (12, 12)]


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preparing.Entries, "write", full)
    with pytest.raises(DataError, match=r"No space left.*run the command again"):
        prepare({"set": opened(write_llava(tmp_path / "in"))}, tmp_path / "out")


def test_what_sources_left_out_when_they_opened_is_listed(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(picture(number))
        if number < 3:
            (folder / f"{number}.txt").write_text("a caption")
    source = opened(SourceConfig(format="folder", path=str(folder)))
    manifest = prepare({"set": source}, tmp_path / "out")
    assert (manifest.samples, manifest.bad) == (3, 1)
    (line,) = read_bad(tmp_path / "out")
    assert (line.source, line.position, line.kind) == ("set", None, "no caption")
    assert line.reason.endswith("(and 1 more)")
    assert str(folder) in line.reason


def test_reasons_are_the_same_in_every_run(tmp_path):
    config = write_llava(tmp_path / "in")
    for image in sorted((tmp_path / "in").rglob("*.jpg"))[:3]:
        image.write_bytes(b"no image at all")
    for run in ("one", "two"):
        prepare({"set": opened(config)}, tmp_path / run)
    one, two = ((tmp_path / run / "bad.jsonl").read_text() for run in ("one", "two"))
    assert one == two
    assert "no known kind" in one
    assert "0x" not in one


@pytest.mark.parametrize("reader", ["indexed", "webdataset"])
def test_an_unfinished_folder_is_not_taken_for_a_whole_one(reader, tmp_path, monkeypatch):
    source = opened(write_llava(tmp_path / "in"))
    monkeypatch.setattr(
        preparing, "complete", lambda *given, **named: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        prepare({"set": source}, tmp_path / "out", config=FIVE)
    assert list((tmp_path / "out").glob("*.tar"))
    with pytest.raises(
        DataError, match="holds an unfinished preparation; finish it with the command that began it"
    ):
        opened(SourceConfig(format=reader, path=str(tmp_path / "out")))
