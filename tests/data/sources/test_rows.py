"""Files of rows: byte offsets, limits, fingerprints, and what opening refuses."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.data.rows.image_refs import image_from
from sailvit.data.rows.row import RowFile, RowOptions
from sailvit.data.sources import FORMATS, open_source

CONFIG = SourceConfig(format="llava", path="rows.jsonl")


def rows_in(folder, text: str, limit: int | None = None) -> RowFile:
    (folder / "rows.jsonl").write_bytes(text.encode())
    return RowFile(CONFIG, folder, RowOptions(limit=limit))


def test_lines_are_found_by_their_bytes(tmp_path):
    rows = rows_in(tmp_path, '{"a": "ü🟦"}\n\n  \n{"a": 2}\r\n{"a": 3}')
    assert [rows[position] for position in range(len(rows))] == [{"a": "ü🟦"}, {"a": 2}, {"a": 3}]


def test_a_limit_reads_the_first_rows(tmp_path):
    assert len(rows_in(tmp_path, '{"a": 1}\n' * 5, limit=3)) == 3
    assert len(rows_in(tmp_path, '{"a": 1}\n' * 5, limit=9)) == 5


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(
    "text",
    ['[{"a": 1}, {"a": 2}]', '\n[\n{"a": 1},\r\n{"a": 2}\r\n]', '{"a": 1}\r\n\r\n{"a": 2}\r\n'],
)
def test_arrays_and_lines_are_told_by_content(tmp_path, name, mark, text):
    (tmp_path / name).write_bytes((mark + text).encode())
    rows = RowFile(SourceConfig(format="llava", path=name), tmp_path, RowOptions())
    assert [rows[position] for position in range(len(rows))] == [{"a": 1}, {"a": 2}]


def test_a_damaged_line_is_counted_with_the_blank_ones(tmp_path):
    rows = rows_in(tmp_path, '\ufeff\n{"a": 1}\n\n\n{"a": 2,}\n' + "[" * 100_000)
    with pytest.raises(DataError, match=r"line 5 is not JSON .*column 9"):
        rows[1]
    with pytest.raises(DataError, match="line 6 is not JSON"):
        rows[2]


@pytest.mark.parametrize(
    ("value", "image"),
    [
        (b"bytes", b"bytes"),
        ({"bytes": b"bytes", "path": "a.png"}, b"bytes"),
        ({"bytes": None, "path": "a.png"}, Path("in/a.png")),
        ({"url": "data:image/png;base64,YWJj"}, b"abc"),
        ("data:image/png;base64,YWJj", b"abc"),
        ("photo:1.png", Path("in/photo:1.png")),
    ],
)
def test_ways_to_give_an_image(value, image):
    assert image_from(value, Path("in")) == image


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("data:image/png;base64,a?", "base64"),
        ("https://host/a.png", "missing file"),
        ("", "image"),
        ({}, "image"),
        ([], "image"),
        ({"path": ""}, "image"),
    ],
)
def test_images_that_cannot_be_taken(value, kind):
    with pytest.raises(DataError) as refused:
        image_from(value, Path("in"))
    assert refused.value.kind == kind


def test_the_fingerprint_follows_content_and_options(tmp_path):
    first = rows_in(tmp_path, '{"a": 1}\n').fingerprint
    assert rows_in(tmp_path, '{"a": 1}\n').fingerprint == first
    assert rows_in(tmp_path, '{"a": 1}\n', limit=1).fingerprint != first
    assert rows_in(tmp_path, '{"a": 2}\n').fingerprint != first


def test_a_row_file_can_be_sent_to_another_process(tmp_path):
    rows = pickle.loads(pickle.dumps(rows_in(tmp_path, '{"a": 1}\n')))
    assert rows[0] == {"a": 1}


def test_a_damaged_line_is_named_and_the_others_still_read(tmp_path):
    rows = rows_in(tmp_path, '{"a": 1}\n{"a": \n[3]\n{"a": 4}\n')
    assert rows[3] == {"a": 4}
    with pytest.raises(
        DataError, match=r"rows.jsonl line 2 is not JSON \(Expecting value, column 6\)"
    ):
        rows[1]
    with pytest.raises(DataError, match="found list"):
        rows[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"format": "lava", "path": "rows.jsonl"},
            "source src has format 'lava'.*did you mean llava",
        ),
        ({"format": "llava"}, "source src: no `path`"),
        ({"format": "llava", "path": "gone.jsonl"}, "gone.jsonl is not a file"),
        (
            {"format": "llava", "path": "rows.jsonl", "options": {"limits": 3}},
            "option 'limits'.*did you mean limit",
        ),
        (
            {"format": "llava", "path": "rows.jsonl", "options": {"limit": 0}},
            "option 'limit'.*greater than or equal",
        ),
        (
            {"format": "captions", "path": "rows.jsonl", "options": {"prompt": "a"}},
            "did you mean prompts",
        ),
        ({"format": "llava", "path": "object.json"}, "holds dict; expected an array"),
        (
            {"format": "llava", "path": "comma.json"},
            r"comma.json is not JSON \(Expecting .* line 3 column 1",
        ),
        ({"format": "llava", "path": "cut.json"}, r"cut.json is not JSON \("),
    ],
)
def test_opening_says_what_is_wrong(tmp_path, settings, message):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "object.json").write_text("{}")
    (tmp_path / "comma.json").write_text('[\n{"a": 1},\n]')
    (tmp_path / "cut.json").write_text('[\n{"a": 1},\n{"a"')
    with pytest.raises(DataError, match=message):
        open_source("src", SourceConfig(**settings), tmp_path)


def test_every_format_opens_by_name(tmp_path):
    assert {"llava", "chat", "captions", "webdataset", "parquet", "arrow", "tsv", "world"} <= set(
        FORMATS
    )
    world = SourceConfig(format="world", options={"tasks": "coarse", "size": 3})
    assert len(open_source("src", world, tmp_path)) == 3
    assert json.dumps(open_source("src", world, tmp_path).fingerprint)


@pytest.mark.parametrize(
    ("old", "new"), [("saved", "arrow"), ("frames", "video_frames"), ("pages", "documents")]
)
def test_a_format_with_its_old_name_is_refused_with_the_new_one(old: str, new: str, tmp_path):
    with pytest.raises(DataError, match=f"format '{old}', which is called '{new}' now"):
        open_source("src", SourceConfig(format=old, path="x"), tmp_path)
    assert new in FORMATS


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_place_is_the_line_that_an_editor_shows(mark: bytes, tmp_path):
    (tmp_path / "d.jsonl").write_bytes(mark + b'{"a": 1}\n\n\n{"a": 2}\n{"a": 3\n')
    rows = RowFile(SourceConfig(format="chat", path="d.jsonl"), tmp_path, RowOptions())
    places = [rows.place(position) for position in range(3)]
    assert places == [(str(tmp_path / "d.jsonl"), line) for line in (1, 4, 5)]
    with pytest.raises(DataError, match="line 5 is not JSON"):
        rows[2]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_lines_in_utf_16_are_refused_when_they_open(tmp_path, encoding):
    (tmp_path / "rows.jsonl").write_bytes('\ufeff{"a": 1}\n{"a": 2}\n'.encode(encoding))
    with pytest.raises(DataError, match=r"rows.jsonl is UTF-16; expected lines in UTF-8"):
        RowFile(CONFIG, tmp_path, RowOptions())
