"""`sailvit study`: what it shows, and what it says of arguments that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sailvit.cli.app import app
from sailvit.cli.study import read_shard
from sailvit.core.errors import RecipeError
from sailvit.core.run import write_json
from sailvit.core.study.cells import cells_of
from sailvit.core.study.folder import StudyFolder
from sailvit.recipes.studies import load_study
from tiny_studies import cell, study, trainable, write_study

MEANS = {"base": 0.4, "gradual": 0.6, "joint": 0.5}


def run(*arguments: str, code: int = 0) -> str:
    found = CliRunner().invoke(app, ["study", *arguments], env={"COLUMNS": "80"})
    assert found.exit_code == code, (found.output, found.exception)
    return found.output


def filled(folder: Path) -> StudyFolder:
    """The folder of a study whose cells are all there but for one that failed."""
    claims = [{"says": "Refined is better.", "over": ["data"]}]
    given, made = study(claims=claims), StudyFolder(folder)
    made.begin(given)
    for number, each in enumerate(cells_of(given)):
        levels = dict(each.levels)
        mean = MEANS[levels["arm"]] + 0.1 * (number % 2)
        failed = {"status": "failed", "reason": "no memory"} if each.name == "joint,seed=1" else {}
        write_json(made.cell(each.name), cell(levels, each.seed, mean, name=each.name, **failed))
    return made


def test_the_report_needs_nothing_but_the_cells(tmp_path: Path):
    made = filled(tmp_path / "study")
    text = run(str(made.path), "--report")
    assert "Refined is better. Holds: by default +" in " ".join(text.split())
    assert "failed joint,seed=1: no memory" in text
    assert "28 of 29 cells" in text
    assert all(len(line) <= 80 for line in text.splitlines() if line[:1] in "┏┃┡│└")
    page = (made.path / "report" / "report.html").read_text()
    assert "<b>joint,seed=1</b> failed: no memory" in page
    assert page.count("<svg") == 3
    assert "| half | " in (made.path / "report" / "tables.md").read_text()


def test_the_plan_counts_and_writes_nothing(tmp_path: Path):
    path = write_study(tmp_path, trainable(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    text = run(str(path), "--plan", "--jobs", "2", "--runs", str(tmp_path / "runs"))
    assert sorted(tmp_path.rglob("*")) == before
    told = " ".join(text.split())
    assert (
        "3 cells, 0 of them there. 5 trainings, where cells that shared none would need 6." in told
    )
    assert "with 2 processes" in told
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_plan_takes_the_speed_of_the_studys_own_precision(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    monkeypatch.setattr(
        "sailvit.models.measures.peak.device_peak", lambda _, of: asked.append(of) or 1e12
    )
    path = write_study(tmp_path, trainable(tmp_path) | {"set": {"precision": precision}})
    run(str(path), "--plan")
    assert asked == [precision]


def test_a_cell_that_is_not_there_is_named_with_the_nearest(tmp_path: Path):
    path = write_study(tmp_path, trainable(tmp_path))
    found = CliRunner().invoke(app, ["study", str(path), "--cell", "gradul,seed=0"])
    assert isinstance(found.exception, RecipeError)
    assert "has no cell gradul,seed=0; did you mean gradual,seed=0?" in str(found.exception)


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path):
    path = write_study(tmp_path, trainable(tmp_path))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("mine")
    found = CliRunner().invoke(app, ["study", str(path), "--out", str(tmp_path / "out")])
    assert "holds letter.txt, which this command did not write" in str(found.exception)
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["letter.txt"]


def test_shards_come_from_the_option_or_from_slurms_array(monkeypatch):
    assert read_shard(None) is None
    assert read_shard("2/4") == (1, 4)
    for wrong in ("0/4", "5/4", "2", "a/b"):
        with pytest.raises(RecipeError, match="expected I/N with I from 1 to N"):
            read_shard(wrong)
    for name, value in {"ID": "14", "COUNT": "3", "MIN": "10", "STEP": "2"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert read_shard(None) == (2, 3)
    assert read_shard("1/4") == (0, 4)


def test_a_studys_folder_can_move_with_its_recipes(tmp_path: Path):
    source = {"format": "chat", "path": "texts.jsonl"}
    measures = {
        "world": {"of": "target"},
        "text": {"kind": "text", "of": "refine", "source": source},
        "probe": {"kind": "probe", "of": "refine", "data": ["sailvit:world", "pictures"]},
    }
    here = tmp_path / "here"
    here.mkdir()
    path = write_study(here, trainable(here, measures=measures))
    StudyFolder(here / "trained").begin(load_study(path))
    assert str(tmp_path) not in (here / "trained" / "study.json").read_text()
    assert StudyFolder(here / "trained").study() == load_study(path)
    there = here.rename(tmp_path / "there")
    moved = StudyFolder(there / "trained").study()
    assert moved == load_study(there / path.name)
    assert moved.steps["refine"].recipe == str(there / "refine.yaml")
    assert moved.measures["probe"].data == ["sailvit:world", str(there / "pictures")]


def test_a_shipped_recipes_name_is_no_path(tmp_path: Path):
    given, folder = study(), StudyFolder(tmp_path / "study")
    folder.begin(given)
    assert folder.study() == given
