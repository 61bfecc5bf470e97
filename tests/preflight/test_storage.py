"""What states and parts will take, against what they take."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from sailvit.cli.plan import storage_line
from sailvit.core.recipe import CheckpointConfig
from sailvit.preflight.plan import plan
from sailvit.preflight.storage import Storage, storage_remarks
from sailvit.training import trainer as module
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord
from tiny_parts import Parts
from tiny_runs import recipe, stage, train, write_data


class Sizes(Callback):
    """The largest state seen."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.largest = folder / "state", 0

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        for state in self.folder.glob("*/complete.json"):
            held = sum(path.stat().st_size for path in state.parent.glob("*.safetensors"))
            self.largest = max(self.largest, held)


def test_the_estimate_is_what_a_run_writes(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "device_peak", lambda *_: 1e12)
    stages = [
        stage("coarse", train={"connector": 1.0}, length={"samples": 6}),
        stage("fine", train={"connector": 1.0, "tower": 0.5}, length={"samples": 8}),
    ]
    made = recipe(parts, write_data(tmp_path / "data"), stages)
    made = made.model_copy(update={"checkpoint": CheckpointConfig(every=1)})
    found = plan(made).storage
    assert found is not None
    sizes = Sizes(tmp_path / "run")
    train(made, tmp_path / "run", sizes)
    written: dict[int, int] = {
        path.stat().st_ino: path.stat().st_size
        for path in (tmp_path / "run/stages").rglob("*.safetensors")
    }
    # Names and step counts come on top: little beside real models, much beside these.
    assert found.state == pytest.approx(sizes.largest, rel=0.3)
    assert found.parts == pytest.approx(sum(written.values()), rel=0.2)
    assert found.states == 3
    assert "up to 3 states" in storage_line(found)
    assert "streams" in storage_line(found)


def test_a_disk_with_less_room_is_remarked_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []

    def usage(place: Path) -> Any:
        seen.append(place)
        return shutil._ntuple_diskusage(10 << 30, 8 << 30, 2 << 30)  # type: ignore[attr-defined]

    monkeypatch.setattr(shutil, "disk_usage", usage)
    (remark,) = storage_remarks(Storage(state=1 << 30, states=3, parts=0), tmp_path / "runs/mine")
    assert "2.0 GiB free; states and parts take up to 3.0 GiB" in remark
    assert seen == [tmp_path]
    assert storage_remarks(Storage(state=1 << 30, states=1, parts=0), tmp_path) == []
