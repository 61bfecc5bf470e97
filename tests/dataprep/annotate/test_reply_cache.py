"""The cache of replies keeps to its own database."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from sailvit.core.errors import DataError
from sailvit.dataprep.annotate.cache import ReplyCache
from sailvit.dataprep.annotate.replies import Reply


def test_a_database_of_another_program_is_left_as_it_is(tmp_path: Path):
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE songs (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(DataError, match="is a database of another program"):
        ReplyCache(path)
    assert path.read_bytes() == before


def test_its_own_is_used_again(tmp_path: Path):
    for _ in range(2):
        cache = ReplyCache(tmp_path / "ours")
        cache.store("key", Reply(text="yes", prompt_tokens=1, answer_tokens=1))
        cache.close()
    assert ReplyCache(tmp_path / "ours").recall("key") == Reply(
        text="yes", prompt_tokens=1, answer_tokens=1
    )
