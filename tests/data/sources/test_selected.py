"""Format `selected`: the chosen records, and refusals when what they were chosen from has changed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.data.sources import open_source
from sailvit.data.sources.selected import SelectedSource
from sailvit.dataprep.curate.curating import curate
from sailvit.dataprep.curate.selections import write_selection
from sailvit.dataprep.curate.settings import Curation


def write_rows(path: Path, count: int = 20) -> None:
    rows = [
        {
            "id": f"r{i}",
            "messages": [
                {"role": "user", "content": "Go."},
                {"role": "assistant", "content": "x" * i},
            ],
        }
        for i in range(1, count + 1)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def selection(tmp_path: Path, monkeypatch) -> Path:
    """The rows of 8 characters and more, chosen where the data's path is relative."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl")
    config = SourceConfig(format="chat", path="rows.jsonl")
    source = open_source("rows", config, Path())
    curated = curate(source, Curation(filters=[{"length": {"at_least": 8}}]))
    write_selection(tmp_path / "chosen", config, source, curated)
    return tmp_path / "chosen"


def opened(folder: Path, **options: object):
    return open_source(
        "chosen", SourceConfig(format="selected", path=str(folder), options=options), Path("/")
    )


def test_it_reads_the_chosen_records_in_order(selection: Path):
    source = opened(selection)
    assert [source[i].id for i in range(len(source))] == [f"r{i}" for i in range(8, 21)]
    assert source.shards == (13,)
    assert json.loads((selection / "report.json").read_text())["kept"] == 13


def test_a_limit_reads_the_first_ones(selection: Path):
    assert len(opened(selection, limit=4)) == 4
    assert opened(selection, limit=4).fingerprint != opened(selection).fingerprint


def test_the_fingerprint_is_that_of_the_data_and_of_the_choice(selection: Path):
    before = opened(selection).fingerprint
    assert opened(selection).fingerprint == before
    np.save(selection / "positions.npy", np.arange(3))
    assert opened(selection).fingerprint != before


def test_a_changed_source_is_refused(selection: Path):
    write_rows(selection.parent / "rows.jsonl", 21)
    with pytest.raises(DataError, match="positions may mean other records") as caught:
        opened(selection)
    assert caught.value.kind == "changed source"


def test_moved_data_are_named_by_an_option(selection: Path):
    moved = selection.parent / "moved.jsonl"
    (selection.parent / "rows.jsonl").rename(moved)
    with pytest.raises(DataError, match=r"rows.jsonl is not a file"):
        opened(selection)
    assert len(opened(selection, path=str(moved))) == 13


@pytest.mark.parametrize(
    "positions", [np.array([3, 2]), np.array([3, 3]), np.array([-1]), np.array([20]), np.zeros(3)]
)
def test_positions_that_make_no_sense_are_refused(selection: Path, positions: np.ndarray):
    np.save(selection / "positions.npy", positions)
    with pytest.raises(DataError, match="expected rising int64 positions below 20"):
        opened(selection)


@pytest.mark.parametrize(
    ("name", "content"), [("source.json", b"{}"), ("source.json", b"no"), ("positions.npy", b"no")]
)
def test_damaged_files_are_refused(selection: Path, name: str, content: bytes):
    (selection / name).write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read .* run `sailvit data curate` again"):
        opened(selection)


def test_a_folder_that_is_no_selection_is_refused(tmp_path: Path):
    with pytest.raises(
        DataError, match=r"has no source.json; expected a folder that `sailvit data curate` wrote"
    ):
        opened(tmp_path)


class Sharded:
    """A source in shards of 4, 3 and 5 records."""

    fingerprint = "sharded"
    shards = (4, 3, 5)

    def __len__(self) -> int:
        return 12

    def __getitem__(self, position: int) -> int:
        return position


def test_shards_are_those_of_the_inner_source_without_empty_ones():
    source = SelectedSource(Sharded(), np.array([1, 3, 7, 8, 11]))
    assert source.shards == (2, 3)
    assert [source[i] for i in range(5)] == [1, 3, 7, 8, 11]
