"""Curves: which tool gets what, that a missing one is named, and the real tools without a network."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sailvit.core.errors import RecipeError, RunError
from sailvit.core.run import write_json
from sailvit.training.output import loggers as module
from sailvit.training.output.loggers import Loggers, refuse_missing
from sailvit.training.stages.stage_run import StageRun
from tiny_parts import Parts
from tiny_runs import stage, stage_run


class Refused(Exception):  # noqa: N818 - named as the tool names it
    pass


class FakeTool(ModuleType):
    """A module with the few names of wandb and trackio that are used."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.errors = SimpleNamespace(Error=Refused)
        self.given: dict[str, Any] = {}
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = 0
        self.refusal: str | None = None

    def init(self, **given: Any) -> FakeTool:
        if self.refusal:
            raise Refused(self.refusal)
        self.given = given
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTool:
    tool = FakeTool("wandb")
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, tool)
    return tool


def made(parts: Parts, folder: Path, *tools: str) -> StageRun:
    return stage_run(parts.build(), stage("fine"), folder, monitoring={"loggers": list(tools)})


@pytest.mark.parametrize("tool", ["wandb", "trackio"])
def test_values_are_logged_under_their_stage_over_steps_of_the_run(
    tool: str, fake: FakeTool, parts: Parts, tmp_path: Path
):
    ready = made(parts, tmp_path, tool)
    write_json(
        tmp_path / "manifest.json", {"created": "now", "stages": [{"index": -1, "steps": 100}]}
    )
    shown = Loggers(ready.recipe, ready.folder)
    assert not fake.given, "nothing starts before there is something to show"
    for step in (1, 2):
        ready.step = step
        shown.add(ready, {"loss/next_token": 3.0 / step})
    shown.add(ready, {"monitoring/cka": 0.5})
    shown.close()
    shown.close()
    assert fake.logged == [
        (101, {"fine/loss/next_token": 3.0}), (102, {"fine/loss/next_token": 1.5}), (102, {"fine/monitoring/cka": 0.5})
    ]  # fmt: skip
    assert fake.finished == 1
    assert fake.given["project"] == "sailvit"
    assert fake.given["name"].startswith(tmp_path.name)
    assert fake.given["resume"] == "allow"
    assert fake.given["config"]["sequence"] == 512
    assert not (tmp_path / "tensorboard").exists()


def test_a_resumed_run_goes_on_under_the_same_identity(
    fake: FakeTool, parts: Parts, tmp_path: Path
):
    names = []
    for created in ("monday", "monday", "tuesday"):
        write_json(tmp_path / "manifest.json", {"created": created, "stages": []})
        ready = made(parts, tmp_path, "wandb")
        Loggers(ready.recipe, ready.folder).open()
        names.append(fake.given["id"])
    assert names[0] == names[1] != names[2]


def test_a_tool_that_does_not_start_says_what_to_do(fake: FakeTool, parts: Parts, tmp_path: Path):
    fake.refusal = "no API key"
    ready = made(parts, tmp_path, "wandb")
    with pytest.raises(
        RunError, match=r"no API key.*wandb login.*WANDB_MODE=offline.*monitoring\.loggers"
    ):
        Loggers(ready.recipe, ready.folder).open()


@pytest.mark.parametrize("tool", ["wandb", "trackio"])
def test_a_missing_extra_is_named(
    tool: str, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == tool else object())
    with pytest.raises(RecipeError, match=rf"{tool}, which is not installed.*sailvit\[{tool}\]"):
        refuse_missing(made(parts, tmp_path, "tensorboard", tool).recipe)
    refuse_missing(made(parts, tmp_path, "tensorboard").recipe)


def test_no_tool_at_all_is_fine(parts: Parts, tmp_path: Path):
    ready = made(parts, tmp_path)
    Loggers(ready.recipe, ready.folder).add(ready, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def in_its_own_process(tool: str, folder: Path, **environment: str) -> None:
    """Show one value with the real tool, which reads its environment when it is imported."""
    code = (
        "import sys; from pathlib import Path; from sailvit.core.run import RunFolder\n"
        "from sailvit.training.output.loggers import LOGGERS\n"
        "from types import SimpleNamespace\n"
        "viewer = LOGGERS[sys.argv[1]](SimpleNamespace(model_dump=lambda mode: {}), RunFolder(Path(sys.argv[2])))\n"
        "viewer.add({'fine/monitoring/cka': 0.25}, samples=8, step=1)\n"
        "viewer.close()\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, tool, str(folder)],
        env={**os.environ, **environment},
        check=True,
    )


@pytest.mark.slow
def test_trackio_itself_takes_them_without_a_network(tmp_path: Path):
    pytest.importorskip("trackio")
    in_its_own_process("trackio", tmp_path, TRACKIO_DIR=str(tmp_path / "kept"))
    with sqlite3.connect(tmp_path / "kept" / "sailvit.db") as database:
        assert "fine/monitoring/cka" in str(
            database.execute("select metrics from metrics").fetchall()
        )


@pytest.mark.slow
def test_wandb_itself_takes_them_without_a_network(tmp_path: Path):
    pytest.importorskip("wandb")
    in_its_own_process("wandb", tmp_path, WANDB_MODE="offline", WANDB_SILENT="true")
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
