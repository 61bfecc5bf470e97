"""Files that appear when they are whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from sailvit.core.atomic import whole_file


def test_a_file_appears_when_the_block_ends(tmp_path: Path):
    path = tmp_path / "new" / "rows.jsonl"
    with whole_file(path) as draft:
        draft.write_text("all")
        assert not path.exists()
    assert [(each.name, each.read_text()) for each in path.parent.iterdir()] == [
        ("rows.jsonl", "all")
    ]


def test_an_error_leaves_the_previous_file(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("before")
    with pytest.raises(FileNotFoundError), whole_file(path) as draft:
        draft.unlink()
    assert path.read_text() == "before"
