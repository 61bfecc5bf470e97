"""`sailvit data quarantine`: counts, examples, full lists, and runs without any."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import typer
from typer.testing import CliRunner

from sailvit.cli.data.quarantine import counts, quarantine
from sailvit.core.bad_records import read_quarantine
from sailvit.core.errors import RunError
from sailvit.core.run import RunFolder, append_line

app = typer.Typer()
app.command()(quarantine)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(
        app, list(arguments), env={"COLUMNS": "140", "NO_COLOR": "1"}, catch_exceptions=False
    )
    assert result.exit_code == 0
    return result.output


def line(step, position, kind="image", source="photos", stage="fine", **more):
    fields = {
        "stage": stage,
        "stage_index": int(stage != "fine"),
        "step": step,
        "source": source,
        "position": position,
        "id": f"r{position}",
        "kind": kind,
    }
    return {**fields, "reason": f"{kind} of [red] {position} is damaged; fetch it again", **more}


@pytest.fixture
def folder(tmp_path):
    here = RunFolder(tmp_path)
    here.recipe.touch()
    for entry in (
        line(3, 7),
        line(3, 7),
        line(9, 7),
        line(1, 2, "crc", shard="a/0.tar", offset=12288),
    ):
        append_line(here.quarantine, entry)
    append_line(tmp_path / "quarantine-1.jsonl", line(2, 4, rank=1))
    append_line(
        tmp_path / "quarantine-1.jsonl", line(1, 1, "text", source="chat", stage="full", id="")
    )
    return tmp_path


def test_lines_of_all_ranks_come_in_the_order_of_steps(folder):
    found = [
        (entry.stage, entry.step, entry.position) for entry in read_quarantine(RunFolder(folder))
    ]
    assert found == [("fine", 1, 2), ("fine", 2, 4), ("fine", 3, 7), ("fine", 9, 7), ("full", 1, 1)]


def test_counts_tell_records_from_times(folder):
    found = counts(read_quarantine(RunFolder(folder)))
    assert found == {
        ("photos", "image"): (2, 3),
        ("photos", "crc"): (1, 1),
        ("chat", "text"): (1, 1),
    }
    assert next(iter(found)) == ("photos", "image")


def test_the_table_and_one_example_of_each(folder):
    text = run(str(folder))
    assert "4 records left out" in text
    assert (
        "photos 2 (r2) in a/0.tar at 12,288, step 1 of fine: crc crc of [red] 2 is damaged; fetch it again"
        in text
    )
    assert "chat 1, step 1 of full: text" in text
    assert text.count("is damaged") == 3
    assert run(str(folder), "--all").count("is damaged") == 5


def test_json_is_for_programs(folder):
    lines = [json.loads(text) for text in run(str(folder), "--json").splitlines()]
    assert lines == [asdict(bad) for bad in read_quarantine(RunFolder(folder))]


def test_runs_without_bad_records_and_folders_that_are_none(tmp_path):
    RunFolder(tmp_path).recipe.touch()
    assert "left no record out" in run(str(tmp_path))
    assert run(str(tmp_path), "--json") == ""
    with pytest.raises(
        RunError, match=r"gone/recipe.yaml is not there; expected the folder of a run"
    ):
        run(str(tmp_path / "gone"))


def test_damage_without_a_position_is_told_apart_by_its_place_and_kind(tmp_path):
    here = RunFolder(tmp_path)
    here.recipe.touch()
    for shard, offset, kind, count in (
        ("a", 1, "cut", 1),
        ("b", 1, "cut", 1),
        ("a", 1, "link", 1),
        ("a", 9, "link", 3),
    ):
        append_line(
            here.quarantine,
            line(0, None, kind, id="", shard=f"{shard}.tar", offset=offset, count=count),
        )
    assert counts(read_quarantine(here)) == {("photos", "link"): (4, 4), ("photos", "cut"): (2, 2)}
    text = run(str(tmp_path), "--all")
    assert text.count("is damaged") == 4
    assert "photos in b.tar at 1, step 0 of fine: cut" in text


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="expected the folder of a run"):
        run(str(tmp_path))


@pytest.mark.parametrize(("shard", "place"), [("d.jsonl", "at line 9"), ("p.parquet", "at 9")])
def test_files_of_lines_are_shown_with_the_line(shard: str, place: str, tmp_path):
    here = RunFolder(tmp_path)
    here.recipe.touch()
    append_line(here.quarantine, line(1, 8, shard=shard, offset=9))
    assert f"photos 8 (r8) in {shard} {place}, step 1 of fine:" in run(str(tmp_path))
