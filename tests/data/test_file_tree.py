"""The files below a folder: their order, links to folders, and links that lead back."""

from __future__ import annotations

from pathlib import Path

import pytest

from sailvit.core.recipe import SourceConfig
from sailvit.data.file_tree import files_below
from sailvit.data.shards.files import shard_paths
from sailvit.data.sources.detect import detect


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_files_are_sorted_within_each_folder_those_at_the_top_first(tmp_path):
    put(tmp_path, "b/2", "b/10", "a/x/1", "a/z", "c", ".d", ".e/1")
    assert list(files_below(tmp_path)) == ["c", "a/z", "a/x/1", "b/10", "b/2"]
    assert set(files_below(tmp_path, hidden=True)) - set(files_below(tmp_path)) == {".d", ".e/1"}
    assert list(files_below(tmp_path / "none")) == []


def test_linked_folders_are_read_and_links_that_lead_back_are_not(tmp_path):
    put(tmp_path, "data/own/1", "far/2", "far/deep/3")
    (tmp_path / "data/linked").symlink_to(tmp_path / "far")
    (tmp_path / "data/own/back").symlink_to(tmp_path / "data")
    (tmp_path / "far/deep/again").symlink_to(tmp_path / "far")
    assert list(files_below(tmp_path / "data")) == ["linked/2", "linked/deep/3", "own/1"]


@pytest.mark.parametrize(("form", "suffix"), [("webdataset", ".tar"), ("parquet", ".parquet")])
def test_shards_in_linked_folders_are_found_and_told(tmp_path, form, suffix):
    put(tmp_path, f"data/own/a{suffix}", f"far/b{suffix}")
    (tmp_path / "data/linked").symlink_to(tmp_path / "far")
    (tmp_path / "only").mkdir()
    (tmp_path / "only/linked").symlink_to(tmp_path / "far")
    config = SourceConfig(format=form, path="data")
    found = shard_paths(config, tmp_path, suffix)
    assert found == [tmp_path / f"data/linked/b{suffix}", tmp_path / f"data/own/a{suffix}"]
    assert detect(tmp_path / "only").format == form
