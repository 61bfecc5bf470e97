"""A full disk in mid-run: lines wait, points and tools are left out, and a state is never ahead of its lines."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from sailvit.checkpoint.store import has_checkpoint
from sailvit.core import run as run_module
from sailvit.core.errors import RunError
from sailvit.core.recipe import CheckpointConfig, Recipe
from sailvit.core.run import RunFolder, append_lines
from sailvit.training import trainer as module
from sailvit.training.monitoring.monitored import MonitoringData
from sailvit.training.output import loggers
from sailvit.training.stages import journal
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.journal import Journal, keep_lines
from sailvit.training.stages.stage_run import StageRun, StepRecord
from sailvit.training.trainer import Trainer
from tiny_parts import Parts
from tiny_runs import lines, recipe, stage, train, weights, write_data

FULL = OSError(errno.ENOSPC, "No space left on device")
READ_ONLY = OSError(errno.EROFS, "Read-only file system")


class Disk:
    """Takes no line while it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: OSError = FULL) -> None:
        self.full = False

        def append(path: Path, values: Any) -> None:
            if self.full:
                raise error
            append_lines(path, values)

        monkeypatch.setattr(journal, "append_lines", append)


@pytest.mark.parametrize("error", [FULL, READ_ONLY], ids=["full", "read-only"])
def test_lines_wait_in_order_and_are_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
):
    disk, told = Disk(monkeypatch, error), list[dict[str, Any]]()
    written = Journal(told.append)
    written.write(tmp_path / "a.jsonl", {"n": 1})
    disk.full = True
    for number in (2, 3):
        written.write(tmp_path / "a.jsonl", {"n": number})
        written.write(tmp_path / "b.jsonl", {"n": number})
    with pytest.raises(RunError, match=f"{error.strerror}.*no state is saved ahead of them"):
        written.settle()
    assert lines(tmp_path / "a.jsonl") == [{"n": 1}]
    disk.full = False
    written.settle()
    written.write(tmp_path / "a.jsonl", {"n": 4})
    assert [line["n"] for line in lines(tmp_path / "a.jsonl")] == [1, 2, 3, 4]
    assert [line["n"] for line in lines(tmp_path / "b.jsonl")] == [2, 3]
    assert ["make room now" in line["note"] for line in told] == [True]


def test_half_a_line_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "lines.jsonl"
    append_lines(path, [{"n": 1}])
    sound = Path.open

    class Short:
        """A file on a disk with room for three bytes."""

        def __init__(self, file: Any) -> None:
            self.file, self.room = file, 3

        def __enter__(self) -> Short:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, data: Any) -> int:
            if not self.room:
                raise FULL
            self.room = 0
            return int(self.file.write(bytes(data[:3])))

    with monkeypatch.context() as patch:
        patch.setattr(run_module.Path, "open", lambda *a, **k: Short(sound(*a, **k)))
        with pytest.raises(OSError, match="No space left"):
            append_lines(path, [{"n": 2}])
    append_lines(path, [{"n": 3}])
    assert path.read_text() == '{"n": 1}\n{"n": 3}\n'


def test_a_resumed_run_keeps_lines_whose_texts_hold_other_ends_of_lines(tmp_path: Path):
    path = tmp_path / "quarantine.jsonl"
    rows = [
        {"stage_index": 0, "step": step, "id": f"a{end}b"}
        for step, end in enumerate("\u2028\u2029\u0085\x1c\r", 1)
    ]
    append_lines(path, rows)
    with path.open("a") as file:
        file.write('{"stage_index": 0, "st')
    keep_lines(path, 0, 4)
    assert lines(path) == rows[:4]


@pytest.fixture
def made(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(module, "device_peak", lambda *_: 1e12)
    only = stage(length={"samples": 30}, global_batch=1)
    return recipe(
        parts, write_data(tmp_path / "data"), [only], monitoring={"every": 2, "share": None}
    )


class At(Callback):
    """Does something after a step."""

    def __init__(self, **actions: Callable[[], None]) -> None:
        self.actions = {int(name[1:]): action for name, action in actions.items()}

    def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
        self.actions.get(record.step, lambda: None)()


def test_a_disk_that_is_full_for_a_while_costs_nothing(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = weights(train(made, tmp_path / "whole"))
    disk = Disk(monkeypatch)

    def full() -> None:
        disk.full = True

    def free() -> None:
        disk.full = False

    found = weights(train(made, tmp_path / "run", At(_2=full, _5=free)))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    for name in ("metrics.jsonl", "proofs.jsonl", "monitoring.jsonl"):
        steps = [
            [line["step"] for line in lines(tmp_path / place / name)] for place in ("run", "whole")
        ]
        assert steps[0] == steps[1]


def test_a_disk_that_stays_full_stops_the_run_when_a_state_is_due(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    disk = Disk(monkeypatch)

    def full() -> None:
        disk.full = True

    often = made.model_copy(update={"checkpoint": CheckpointConfig(every=4)})
    with pytest.raises(RunError, match="No space left on device"):
        train(often, tmp_path / "run", At(_5=full))
    assert [path.name for path in (tmp_path / "run/state").iterdir()] == ["00-00000004"]
    disk.full = False
    expected = weights(train(made, tmp_path / "whole"))
    found = weights(train(often, tmp_path / "run", resume=True))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert [line["step"] for line in lines(tmp_path / "run/metrics.jsonl")] == [
        line["step"] for line in lines(tmp_path / "whole/metrics.jsonl")
    ]


@pytest.mark.parametrize("error", [FULL, SafetensorError("I/O error: No space left on device")])
def test_looks_and_tools_that_cannot_write_are_left_out(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def full(*_: Any, **__: Any) -> None:
        raise error

    told: list[dict[str, Any]] = []
    monkeypatch.setattr(MonitoringData, "save", full)
    if isinstance(error, OSError):
        monkeypatch.setattr(loggers._TensorBoard, "add", full)
    Trainer(made, RunFolder(tmp_path / "run"), announce=told.append).run()
    notes = [line["note"] for line in told if "note" in line]
    assert sum("nothing is monitored until the next stage" in note for note in notes) == 1
    assert sum("tensorboard failed" in note for note in notes) == isinstance(error, OSError)
    assert lines(tmp_path / "run/monitoring.jsonl") == []
    assert json.loads((tmp_path / "run/manifest.json").read_text())["stages"]
    assert not has_checkpoint(tmp_path / "run/state")


def test_base_features_that_could_not_be_kept_are_written_at_a_later_look(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sound, calls = MonitoringData.save, iter(range(99))

    def once(monitored: MonitoringData, path: Path) -> None:
        if next(calls) == 1:
            raise FULL
        sound(monitored, path)

    monkeypatch.setattr(MonitoringData, "save", once)
    train(made, tmp_path / "run")
    assert MonitoringData.load(tmp_path / "run/monitoring.safetensors").base is not None
    assert lines(tmp_path / "run/monitoring.jsonl")[0]["cka"] == pytest.approx(1.0)
