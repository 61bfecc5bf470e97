"""The command line and folders: what a run leaves is its own, and what others left is theirs."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from sailvit.cli.app import main
from sailvit.core.ownership import strangers
from sailvit.core.run import read_json
from sailvit.recipes.loader import dump_recipe
from sailvit.training import trainer as trainer_module
from tiny_parts import Parts
from tiny_runs import recipe, stage, without_pages, write_data


def sailvit(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sailvit", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.EACCES, "change its mode"), (errno.ENOSPC, "free space there")]
)
def test_folders_that_cannot_be_written_are_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, advice: str
):
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "/of/another")

    monkeypatch.setattr("sailvit.dataprep.rendering.render", fail)
    assert sailvit(monkeypatch, "data", "charts", "--out", "charts", "--count", "1") == 1
    told = capsys.readouterr().err
    assert f"{os.strerror(number)}: '/of/another'; {advice}" in told


@pytest.fixture
def tiny(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe in a file of the name that runs give theirs, in the current folder."""
    monkeypatch.setattr(trainer_module, "device_peak", lambda *_: 1e12)
    without_pages(monkeypatch)
    monkeypatch.chdir(tmp_path)
    made = recipe(
        parts,
        write_data(tmp_path / "data"),
        [stage("only", length={"samples": 30}, global_batch=1)],
        checkpoint={"every": 1, "keep": 5},
    )
    (tmp_path / "recipe.yaml").write_text(dump_recipe(made))
    return tmp_path / "recipe.yaml"


def test_a_run_is_all_ours_and_goes_on_by_value(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run = tmp_path / "runs/tiny"
    # Stopped in its middle, as by a full quarantine.
    sound = trainer_module.KeepClaim.step_ended

    def stopped(callback: trainer_module.KeepClaim, run: object, record: object) -> None:
        sound(callback, run, record)  # type: ignore[arg-type]
        if record.step == 3:  # type: ignore[attr-defined]
            raise trainer_module.RunError("raise `quarantine`")

    monkeypatch.setattr(trainer_module.KeepClaim, "step_ended", stopped)
    assert sailvit(monkeypatch, "train", "recipe.yaml") == 1
    assert strangers(run) == []
    assert not (run / "run.lock").exists()
    monkeypatch.setattr(trainer_module.KeepClaim, "step_ended", sound)
    # Edited in the run's own recipe.
    kept = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(kept.replace("lr: 0.001", "lr: 0.5"))
    capsys.readouterr()
    assert sailvit(monkeypatch, "train", "runs/tiny/recipe.yaml", "--resume") == 1
    assert "stages.0.optim.lr: 0.001 is now 0.5" in capsys.readouterr().err
    # The recipe of the same name here is not a run's, so the run is found by the recipe's name.
    tiny.write_text("# a comment\n" + tiny.read_text())
    more = ("--set", "quarantine.share=0.5", "--set", "workers=0")
    assert sailvit(monkeypatch, "train", "recipe.yaml", "--resume", *more) == 0
    assert "recipe.yaml was edited" in capsys.readouterr().out
    manifest = read_json(run / "manifest.json")
    assert [list(change["settings"]) for change in manifest["changed"]] == [["quarantine.share"]]
    assert manifest["changed"][0]["settings"]["quarantine.share"] == {"from": 0.01, "to": 0.5}
    assert "share: 0.5" in (run / "recipe.yaml").read_text()
    assert "lr: 0.001" in (run / "recipe.yaml").read_text()
    assert strangers(run) == []
    # One that cannot start leaves the old run as it was; so does one that would read what it replaces.
    tower = f"model.tower={run / 'stages/00-only/tower'}"
    for wrong in ("model.tower=/not/there", tower):
        arguments = ("train", "recipe.yaml", "--overwrite", "--set", wrong)
        assert sailvit(monkeypatch, *arguments) == 1
        assert read_json(run / "manifest.json") == manifest
    (run / "notes.txt").write_text("mine")
    assert sailvit(monkeypatch, "train", "recipe.yaml", "--overwrite") == 1
    assert (run / "notes.txt").read_text() == "mine"
    assert read_json(run / "manifest.json") == manifest


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "--quick", "--run", "mine"),
        ("train", "demo", "--run", "mine", "--overwrite"),
        ("train", "demo", "--run", "mine"),
        ("train", "demo", "--run", "mine", "--set", "resume=auto"),
        ("world", "pretrain", "mine"),
        ("data", "charts", "--out", "mine", "--count", "2"),
        ("data", "documents", "--out", "mine", "--count", "2"),
    ],
)
def test_a_thesis_survives_every_command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years")
    assert sailvit(monkeypatch, *arguments) == 1
    assert "mine holds thesis.tex" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    assert (tmp_path / "mine/thesis.tex").read_text() == "years"
