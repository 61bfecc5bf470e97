"""Detection: the format of files, folders, globs and URLs, and what is said when there is no telling."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sailvit.core.errors import DataError
from sailvit.data.sources.detect import detect

TURNS = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


@pytest.mark.parametrize(
    ("names", "format", "at"),
    [
        (["sailvit.json", "0.tar", "0.parquet"], "indexed", "."),
        (["positions.npy", "source.json"], "selected", "."),
        (["state.json", "data.arrow"], "arrow", "."),
        (["dataset_dict.json", "train/state.json"], "arrow", "."),
        (["b/1.tar", "a/0.tar", "README.md"], "webdataset", "."),
        (["0.tar", "0.parquet", "0_stats.json"], "webdataset", "."),
        (["train-0.parquet"], "parquet", "."),
        (["MMBench.tsv", "notes.txt"], "tsv", "MMBench.tsv"),
        (["a.jpg", "a.txt", "sub/b.PNG", "sub/b.json", "sub/b.caption"], "folder", "."),
        (["a.jpg", "b.jpg", "metadata.jsonl"], "folder", "."),
        (["train/a.jpg", "train/metadata.csv"], "folder", "train"),
    ],
)
def test_folders(tmp_path, names, format, at):
    put(tmp_path, *names)
    found = detect(tmp_path, images="pictures")
    assert (found.format, Path(found.path), found.images) == (format, tmp_path / at, "pictures")


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"image": "a.jpg", "conversations": TURNS}, "llava"),
        ({"images": ["a.jpg"], "messages": TURNS}, "llava"),
        ({"image": None, "conversations": TURNS}, "chat"),
        ({"messages": TURNS}, "chat"),
        ({"image": "a.jpg", "text": "a cat"}, "captions"),
        ({"image": "a.jpg", "caption": "a cat"}, "captions"),
        ({"video": "clips/1", "conversations": TURNS}, "video_frames"),
        ({"frames": ["1.jpg"], "text": "a cat"}, "video_frames"),
    ],
)
@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_rows_tell_by_the_first(tmp_path, row, format, name):
    text = json.dumps(row) + "\n"
    (tmp_path / name).write_text(
        "\ufeff" + (f" [ {text}, {text}]" if name.endswith("json") else text * 2)
    )
    assert detect(tmp_path / name).format == format


def test_rows_speak_for_the_images_beside_them(tmp_path):
    put(tmp_path, "pictures/a.jpg", "pictures/b.jpg")
    (tmp_path / "train.jsonl").write_text(json.dumps({"image": "pictures/a.jpg", "text": "a"}))
    found = detect(tmp_path)
    assert (found.format, found.path) == ("captions", str(tmp_path / "train.jsonl"))


def test_only_the_first_row_of_a_large_array_is_read(tmp_path):
    first = {"image": "a.jpg", "text": "word " * 50_000}
    (tmp_path / "rows.json").write_text("[" + json.dumps(first) + ", this is never read")
    assert detect(tmp_path / "rows.json").format == "captions"


@pytest.mark.parametrize("url", ["s3://bucket/set", "https://host:9000/set", "gs://bucket/set"])
def test_urls_are_prepared_sets(url):
    assert (detect(url).format, detect(url).path) == ("indexed", url)
    assert detect(Path(url)).path == url


def test_globs(tmp_path):
    put(tmp_path, "a.tar", "b.tar", "c.parquet")
    assert detect(tmp_path / "*.tar").format == "webdataset"
    with pytest.raises(DataError, match=r"2 \.tar, 1 \.parquet"):
        detect(tmp_path / "*")
    with pytest.raises(DataError, match="matches nothing"):
        detect(tmp_path / "*.tsv")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds nothing"),
        (["a.tar", "b.parquet"], "1 .tar, 1 .parquet.*name one file, or give the format"),
        (["a.tsv", "b.tsv"], "2 .tsv"),
        (["a.jsonl", "b.jsonl"], "2 .jsonl"),
        (["notes.txt", "more.txt"], "2 .txt"),
        (
            ["train/a.jpg", "train/metadata.csv", "test/b.jpg", "test/metadata.csv"],
            "2 .jpg, 2 .csv",
        ),
    ],
)
def test_folders_that_are_no_one_format(tmp_path, names, message):
    put(tmp_path, *names)
    with pytest.raises(DataError, match=message):
        detect(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.json", '{"a": ', "does not start with a JSON row"),
        ("rows.jsonl", "<html>", "does not start with a JSON row"),
        ("rows.json", "", "has no rows"),
        ("rows.json", "[" * 100_000, "does not start with a JSON row"),
        ("rows.json", "[]", "has no rows"),
        ("rows.jsonl", "\n \n", "has no rows"),
        (
            "rows.json",
            '{"annotations": [], "info": 1}',
            "keys annotations, info; expected `conversations`",
        ),
        ("rows.json", "[3]", "has int"),
        ("rows.tar.gz", "", "ends in .gz.*unpack it"),
        ("rows.docx", "", "ends in .docx; expected"),
    ],
)
def test_files_that_are_no_format(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        detect(tmp_path / name)


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="gone does not exist"):
        detect(tmp_path / "gone")
