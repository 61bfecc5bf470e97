from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from sailvit.core.errors import DataError
from sailvit.core.records import Record, Turn
from sailvit.dataprep import rendering as rendered
from sailvit.dataprep.rendering import Portion, render, write


class Counting:
    """Records with as many images as told, which counts what is asked of it."""

    fingerprint = "counting"

    def __init__(self, size: int, images: int = 1) -> None:
        self.size = size
        self.images = images
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, position: int) -> Record:
        self.read.append(position)
        images = tuple(
            np.full((2, 3, 3), position % 251 + n, dtype=np.uint8) for n in range(self.images)
        )
        turns = (
            Turn("user", "<image>\n" * self.images + "What?"),
            Turn("assistant", str(position)),
        )
        return Record(f"n{position}", turns, images)


@pytest.fixture(autouse=True)
def _small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendered, "_PORTION", 10)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_record_is_written_once_in_order(tmp_path):
    told: list[int] = []
    path = render(Counting(25), tmp_path / "out", "things", report=told.append)
    found = rows(path)
    assert path == tmp_path / "out" / "things.jsonl"
    assert [row["id"] for row in found] == [f"n{n}" for n in range(25)]
    assert all((tmp_path / "out" / row["image"]).is_file() for row in found)
    assert told == [0, 10, 10, 5]
    assert not (tmp_path / "out" / "parts").exists()


def test_several_images_and_none(tmp_path):
    found = rows(render(Counting(3, images=2), tmp_path / "two", "things"))
    assert all(len(row["images"]) == len(set(row["images"])) == 2 for row in found)
    assert all(
        "image" not in row
        for row in rows(render(Counting(3, images=0), tmp_path / "none", "things"))
    )


def test_a_broken_run_goes_on_with_what_is_missing(tmp_path):
    class Breaking(Counting):
        def __getitem__(self, position: int) -> Record:
            if position == 14:
                raise DataError("power cut")
            return super().__getitem__(position)

    with pytest.raises(DataError, match="power cut"):
        render(Breaking(25), tmp_path, "things")
    assert not (tmp_path / "things.jsonl").exists()
    told: list[int] = []
    source = Counting(25)
    found = rows(render(source, tmp_path, "things", report=told.append))
    assert source.read == list(range(10, 25))
    assert told == [10, 10, 5]
    assert len(found) == 25
    render(source, tmp_path, "things", report=told.append)
    assert told[-1] == 25
    assert len(source.read) == 15


def test_a_portion_appears_when_its_images_are_there(tmp_path):
    portion = Portion(Counting(15), tmp_path, 1)
    assert portion.positions == range(10, 15)
    assert not portion.rows.exists()
    assert write(portion) == 5
    assert [row["id"] for row in rows(portion.rows)] == [f"n{n}" for n in range(10, 15)]
    assert len(list((tmp_path / "images" / "000001").iterdir())) == 5


def test_a_folder_with_something_else_is_refused(tmp_path):
    render(Counting(5), tmp_path, "things")
    with pytest.raises(DataError, match=re.escape("'records': 5")):
        render(Counting(6), tmp_path, "things")
