"""`sailvit data quarantine`: counts, examples, full lists, and runs without any."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from sailvit.cli.data.quarantine import counts, quarantine, read_quarantine
from sailvit.core.errors import RunError
from sailvit.core.run import RunFolder, append_line

app = typer.Typer()
app.command()(quarantine)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "140", "NO_COLOR": "1"}, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def line(step, position, kind="image", source="photos", stage="fine", **more):
    fields = {"stage": stage, "step": step, "source": source, "position": position, "id": f"r{position}", "kind": kind}
    return {**fields, "reason": f"{kind} of [red] {position} is damaged; fetch it again", **more}


@pytest.fixture
def folder(tmp_path):
    here = RunFolder(tmp_path)
    for entry in (line(3, 7), line(3, 7), line(9, 7), line(1, 2, "crc", shard="a/0.tar", offset=12288)):
        append_line(here.quarantine, entry)
    append_line(tmp_path / "quarantine-1.jsonl", line(2, 4))
    append_line(tmp_path / "quarantine-1.jsonl", line(1, 1, "text", source="chat", stage="full", id=""))
    return tmp_path


def test_lines_of_all_ranks_come_in_the_order_of_steps(folder):
    found = [(entry["stage"], entry["step"], entry["position"]) for entry in read_quarantine(RunFolder(folder))]
    assert found == [("fine", 1, 2), ("fine", 2, 4), ("fine", 3, 7), ("fine", 9, 7), ("full", 1, 1)]


def test_counts_tell_records_from_times(folder):
    found = counts(read_quarantine(RunFolder(folder)))
    assert found == {("photos", "image"): (2, 3), ("photos", "crc"): (1, 1), ("chat", "text"): (1, 1)}
    assert next(iter(found)) == ("photos", "image")


def test_the_table_and_one_example_of_each(folder):
    text = run(str(folder))
    assert "4 records left out" in text
    assert "photos 2 (r2) in a/0.tar at 12,288, step 1 of fine: crc crc of [red] 2 is damaged; fetch it again" in text
    assert "chat 1, step 1 of full: text" in text
    assert text.count("is damaged") == 3
    assert run(str(folder), "--all").count("is damaged") == 5


def test_json_is_for_programs(folder):
    lines = [json.loads(text) for text in run(str(folder), "--json").splitlines()]
    assert lines == read_quarantine(RunFolder(folder))


def test_runs_without_bad_records_and_folders_that_are_none(tmp_path):
    assert "left no record out" in run(str(tmp_path))
    assert run(str(tmp_path), "--json") == ""
    with pytest.raises(RunError, match="gone is no folder"):
        run(str(tmp_path / "gone"))
