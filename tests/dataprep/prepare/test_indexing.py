"""The index of shards that others wrote: what it says, what it leaves out, and what is read again."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from many_formats import indexed, opened, picture, tree, write_llava, write_parquet
from small_tokenizers import layout_for

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.data.lengths.measuring import measure
from sailvit.data.processing.processor import Processor
from sailvit.data.shards.manifest import load_manifest
from sailvit.dataprep.prepare import indexing
from sailvit.dataprep.prepare.indexing import Indexer, index, index_config
from sailvit.dataprep.prepare.preparing import PrepareConfig, prepare


@pytest.fixture(scope="module")
def processor(chatml) -> Processor:
    return Processor(chatml, layout_for(chatml, max_tiles=4), 64)


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 12345
            tar.addfile(info, io.BytesIO(content))


def write_tars(folder: Path, shards: int = 3) -> Path:
    """Foreign tars: long names, folders, members of other kinds, captions as text."""
    for shard in range(shards):
        members = {}
        for n in range(4):
            key = f"{'long' * 30}/{shard}-{n}" if n == 2 else f"{shard}-{n}"
            members |= {
                f"{key}.jpg": picture(n, "JPEG"),
                f"{key}.seg.npy": b"other",
                f"{key}.txt": b"a red %d" % n,
            }
        write_tar(folder / f"{shard}.tar", members)
    return folder


def test_links_to_shards_that_are_not_there_are_refused(tmp_path):
    folder = write_tars(tmp_path / "set")
    (folder / "9.tar").symlink_to(tmp_path / "moved/9.tar")
    before = tree(folder)
    with pytest.raises(DataError, match=r"9\.tar is a link to a file that is not there"):
        index(index_config(folder))
    assert tree(folder) == before


@pytest.mark.parametrize("workers", [0, 2])
def test_tars_are_read_where_they_are(workers, tmp_path):
    folder = write_tars(tmp_path / "set")
    before = tree(folder)
    manifest = index(index_config(folder), workers=workers)
    plain = opened(SourceConfig(format="webdataset", path=str(folder)))
    found = indexed(folder)
    assert [found[n] for n in range(12)] == [plain[n] for n in range(12)]
    assert (manifest.samples, manifest.format, manifest.root) == (12, "webdataset", ".")
    assert before.items() <= tree(folder).items()
    assert sorted(set(tree(folder)) - set(before)) == [
        "bad.jsonl",
        *(f"index/{n}.tar.npy" for n in range(3)),
        "sailvit.json",
    ]


def test_parquet_is_read_where_it_is(processor, tmp_path):
    config = write_parquet(tmp_path / "set")
    plain = opened(config)
    index(index_config(tmp_path / "set"), processor=processor)
    found = indexed(tmp_path / "set")
    assert [found[n] for n in (15, 0, 7, 8)] == [plain[n] for n in (15, 0, 7, 8)]
    assert np.array_equal(
        measure("x", found, processor).tokens, measure("x", plain, processor).tokens
    )
    assert found.shards == (8, 8)
    entries = np.load(tmp_path / "set/index/part-0.parquet.npy")
    assert list(zip(entries["offset"].tolist(), entries["size"].tolist(), strict=True))[2:5] == [
        (0, 2),
        (1, 0),
        (1, 1),
    ]


def test_dates_and_decimals_beside_texts_are_indexed(tmp_path):
    said = {"at": datetime(2024, 1, 1), "cost": Decimal("0.10"), "lasted": timedelta(seconds=3)}
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello", **said}]
    (tmp_path / "set").mkdir()
    pq.write_table(pa.table({"conversation": [turns] * 3}), tmp_path / "set/a.parquet")
    manifest = index(index_config(tmp_path / "set"))
    assert (manifest.samples, manifest.bad) == (3, 0)
    assert indexed(tmp_path / "set")[2].turns[1].text == "hello"


def test_the_index_may_lie_elsewhere(tmp_path):
    folder = write_tars(tmp_path / "set")
    before = tree(folder)
    index(index_config(folder, out=tmp_path / "idx"))
    assert tree(folder) == before
    assert indexed(tmp_path / "idx")[5].turns[1].text == "a red 1"
    write_tar(folder / "9.tar", {"a.jpg": picture(1), "a.txt": b"new"})
    assert index(index_config(tmp_path / "idx")).samples == 13


def test_kinds_are_given_from_outside(tmp_path):
    folder = write_tars(tmp_path / "set")
    index(index_config(folder, kind="ocr"))
    assert indexed(folder)[0].kind == "ocr"
    assert load_manifest(folder).shards[0].kinds == {"ocr": 4}
    index(index_config(folder))
    assert indexed(folder)[0].kind == "ocr"


def test_bad_records_and_shards_are_left_out_and_listed(tmp_path):
    folder = write_tars(tmp_path / "set")
    write_tar(
        folder / "3.tar",
        {"a.jpg": b"<html>", "a.txt": b"x", "b.jpg": picture(1), "b.txt": b"y", "c.txt": b"z"},
    )
    (folder / "4.tar").write_bytes((folder / "0.tar").read_bytes()[: -(8 << 10)])
    (folder / "5.tar").write_bytes(b"nothing")
    manifest = index(index_config(folder))
    bad = [json.loads(line) for line in (folder / "bad.jsonl").read_text().splitlines()]
    kinds = [(line["source"], line["position"], line["kind"]) for line in bad]
    assert kinds[:2] == [("3.tar", 0, "image"), ("3.tar", 2, bad[1]["kind"])]
    assert [(source, place) for source, place, _ in kinds[2:]] == [("4.tar", None), ("5.tar", None)]
    assert manifest.bad == 4
    found = indexed(folder)
    texts = [found[n].turns[1].text for n in range(12, len(found))]
    assert texts[0] == "y"
    assert all(text.startswith("a red") for text in texts[1:])


def reads(monkeypatch) -> list[str]:
    """Names of the shards that are read from now on."""
    names: list[str] = []

    class Noting(Indexer):
        def index(self, name):
            names.append(name)
            return super().index(name)

    monkeypatch.setattr(indexing, "Indexer", Noting)
    return names


def test_shards_without_a_record_are_not_read_again(processor, tmp_path, monkeypatch):
    folder = write_tars(tmp_path / "set", shards=1)
    write_tar(folder / "1.tar", {})
    (folder / "2.tar").write_bytes(b"nothing")
    names = reads(monkeypatch)
    first = index(index_config(folder), processor=processor)
    assert ([mark.name for mark in first.shards], first.bad) == (["0.tar"], 1)
    assert index(index_config(folder)) == first
    assert names == ["0.tar", "1.tar", "2.tar"]
    write_tar(folder / "1.tar", {"a.jpg": picture(1), "a.txt": b"filled"})
    assert index(index_config(folder), processor=processor).samples == 5
    assert names[3:] == ["1.tar"]
    (folder / "2.tar").unlink()
    assert index(index_config(folder)).bad == 0


def test_only_what_changed_is_read_again(processor, tmp_path, monkeypatch):
    folder = write_tars(tmp_path / "set")
    names = reads(monkeypatch)
    first = index(index_config(folder), processor=processor)
    assert index(index_config(folder), processor=processor) == first
    assert names == ["0.tar", "1.tar", "2.tar"]
    write_tar(folder / "1.tar", {"a.jpg": picture(1), "a.txt": b"changed"})
    second = index(index_config(folder), processor=processor)
    assert names[3:] == ["1.tar"]
    assert second.samples == 9
    whole = measure("x", indexed(folder), processor)
    index(index_config(folder), processor=processor, force=True)
    assert names[4:] == ["0.tar", "1.tar", "2.tar"]
    assert np.array_equal(whole.tokens, measure("x", indexed(folder), processor).tokens)


def test_a_copied_folder_is_known_by_its_checksums(tmp_path, monkeypatch):
    index(index_config(write_tars(tmp_path / "set")))
    shutil.copytree(tmp_path / "set", tmp_path / "copy", copy_function=shutil.copyfile)
    names = reads(monkeypatch)
    index(index_config(tmp_path / "copy"))
    assert names == []


def test_counts_are_added_and_changed_by_another_recipe(processor, chatml, tmp_path, monkeypatch):
    folder = write_tars(tmp_path / "set")
    index(index_config(folder))
    names = reads(monkeypatch)
    index(index_config(folder), processor=processor)
    assert len(names) == 3
    other = Processor(chatml, layout_for(chatml, max_tiles=1), 64)
    index(index_config(folder), processor=other)
    assert len(names) == 6
    assert measure("x", indexed(folder), other).tiles.tolist() == [1] * 12
    index(index_config(folder))
    assert len(names) == 6
    assert load_manifest(folder).measured is not None


def test_counted_and_new_shards_are_not_mixed(processor, tmp_path):
    folder = write_tars(tmp_path / "set")
    index(index_config(folder), processor=processor)
    write_tar(folder / "9.tar", {"a.jpg": picture(1), "a.txt": b"new"})
    with pytest.raises(DataError, match=r"9\.tar is new or changed.*--recipe.*--force"):
        index(index_config(folder))
    assert index(index_config(folder), force=True).measured is None


def test_a_removed_shard_leaves_the_counts_of_the_others(processor, tmp_path):
    folder = write_tars(tmp_path / "set")
    index(index_config(folder), processor=processor)
    (folder / "1.tar").unlink()
    manifest = index(index_config(folder))
    assert manifest.measured is not None
    assert len(measure("x", indexed(folder), processor)) == manifest.samples == 8


@pytest.mark.parametrize("renewing", [False, True])
def test_a_killed_run_goes_on(renewing, processor, tmp_path, monkeypatch):
    folder = write_tars(tmp_path / "set", 5)
    index(index_config(folder, out=tmp_path / "expected"), processor=processor)
    if renewing:
        index(index_config(folder))
    done = []

    class Dying(Indexer):
        def index(self, name):
            if len(done) == 3:
                raise KeyboardInterrupt
            done.append(name)
            return super().index(name)

    monkeypatch.setattr(indexing, "Indexer", Dying)
    with pytest.raises(KeyboardInterrupt):
        index(index_config(folder), processor=processor)
    with pytest.raises(DataError, match=r"sailvit\.json"):
        indexed(folder)
    monkeypatch.undo()
    names = reads(monkeypatch)
    index(index_config(folder), processor=processor)
    assert names == ["3.tar", "4.tar"]
    expected = {
        name: content
        for name, content in tree(tmp_path / "expected").items()
        if name != "sailvit.json"
    }
    assert expected.items() <= tree(folder).items()
    assert not (folder / ".index").exists()


def test_a_prepared_folder_is_counted_without_rewriting(processor, tmp_path):
    source = opened(write_llava(tmp_path / "in", 12, bad=(4,)))
    prepare({"set": source}, tmp_path / "out", config=PrepareConfig(shard_samples=5))
    tars = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.tar")}
    manifest = index(index_config(tmp_path / "out"), processor=processor)
    assert all(path.read_bytes() == content for path, content in tars.items())
    assert "row-4" in (tmp_path / "out/bad.jsonl").read_text()
    assert (manifest.bad, manifest.made["command"]) == (1, "prepare")
    expected = [processor.cost(source[n])[0] for n in range(12) if n != 4]
    assert measure("x", indexed(tmp_path / "out"), processor).tokens.tolist() == expected
    assert (
        prepare({"set": source}, tmp_path / "out", config=PrepareConfig(shard_samples=5))
        == manifest
    )


def test_what_cannot_be_indexed_is_named(tmp_path):
    write_llava(tmp_path / "rows")
    shutil.rmtree(tmp_path / "rows/images")
    with pytest.raises(DataError, match=r"format llava.*sailvit data prepare"):
        index_config(tmp_path / "rows")
    (tmp_path / "set/.prepare").mkdir(parents=True)
    with pytest.raises(DataError, match="unfinished preparation"):
        index_config(tmp_path / "set")


def test_image_paths_of_parquet_start_where_they_are_told(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(picture(1))
    (tmp_path / "set").mkdir()
    pq.write_table(pa.table({"image": ["a.png"], "caption": ["red"]}), tmp_path / "set/0.parquet")
    index(index_config(tmp_path / "set", images=tmp_path / "pictures"))
    (tmp_path / "set").rename(tmp_path / "moved")
    (image,) = indexed(tmp_path / "moved")[0].images
    assert image.read_bytes() == picture(1)


@pytest.mark.parametrize("name", ["bad.jsonl", "costs.npy", "index/notes", ".index/notes"])
def test_files_of_others_are_not_overwritten(tmp_path, name):
    folder = write_tars(tmp_path / "set")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("mine")
    before = tree(folder)
    with pytest.raises(DataError, match=f"holds {name.split('/')[0]}, which no index of ours"):
        index(index_config(folder))
    assert tree(folder) == before
