"""Files of rows: byte offsets, limits, fingerprints, and what opening refuses."""

from __future__ import annotations

import json
import pickle

import pytest

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.data.formats import FORMATS, open_source
from sailvit.data.formats.rows import RowFile, RowOptions

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
    with pytest.raises(DataError, match="not JSON at byte 9"):
        rows[1]
    with pytest.raises(DataError, match="found list"):
        rows[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "lava", "path": "rows.jsonl"}, "source src has format 'lava'.*did you mean llava"),
        ({"format": "llava"}, "source src: no `path`"),
        ({"format": "llava", "path": "gone.jsonl"}, "gone.jsonl is not a file"),
        ({"format": "llava", "path": "rows.jsonl", "options": {"limits": 3}}, "option 'limits'.*did you mean limit"),
        ({"format": "llava", "path": "rows.jsonl", "options": {"limit": 0}}, "option 'limit'.*greater than or equal"),
        ({"format": "captions", "path": "rows.jsonl", "options": {"prompt": "a"}}, "did you mean prompts"),
        ({"format": "llava", "path": "object.json"}, "holds dict; expected an array"),
        ({"format": "llava", "path": "lines.json"}, "name it .jsonl"),
    ],
)
def test_opening_says_what_is_wrong(tmp_path, settings, message):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "object.json").write_text("{}")
    (tmp_path / "lines.json").write_text("{}\n{}\n")
    with pytest.raises(DataError, match=message):
        open_source("src", SourceConfig(**settings), tmp_path)


def test_every_format_opens_by_name(tmp_path):
    assert {"llava", "chat", "captions", "webdataset", "parquet", "saved", "tsv", "world"} <= set(FORMATS)
    world = SourceConfig(format="world", options={"tasks": "coarse", "size": 3})
    assert len(open_source("src", world, tmp_path)) == 3
    assert json.dumps(open_source("src", world, tmp_path).fingerprint)
