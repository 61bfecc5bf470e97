"""Where things are kept that can be made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from sailvit.data.caches import cache_folder


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"SAILVIT_CACHE": "/a"}, Path("/a/costs")),
        ({"XDG_CACHE_HOME": "/b"}, Path("/b/sailvit/costs")),
        ({}, Path.home() / ".cache/sailvit/costs"),
    ],
)
def test_where_counts_are_kept(variables, folder, monkeypatch):
    for name in ("SAILVIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder("costs") == folder
