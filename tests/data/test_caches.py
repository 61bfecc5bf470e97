"""Where things are kept that can be made again."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from sailvit.core.errors import DataError
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


def test_a_user_without_home_is_told_what_to_set(monkeypatch):
    # As in a container that runs under a number which /etc/passwd does not hold.
    for name in ("SAILVIT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(DataError, match="SAILVIT_CACHE"):
        cache_folder("costs")
    monkeypatch.setenv("SAILVIT_CACHE", "/a")
    assert cache_folder("costs") == Path("/a/costs")
