"""`sailvit watch`: what it shows of a run at several widths, and when it ends."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from sailvit.cli import watch as module
from sailvit.cli.app import app
from sailvit.cli.watching import picture, sparkline
from sailvit.core.lock import RunLock, is_held
from sailvit.core.ownership import LOCK
from sailvit.core.run import RunFolder, append_line, write_json
from sailvit.report.following import RunSoFar, StageSoFar

LINE: dict[str, Any] = {
    "stage": "fine", "stage_index": 0, "step": 1, "samples": 160, "tokens": 2_500_000, "done": 0.25, "padding": 0.01,
    "lr": {"tower": 1e-4, "connector": 2e-4}, "loss": {"next_token": 2.0, "contrastive": 5.0}, "grad_norm": 1.5,
    "seconds": 2.0, "wait": 0.5, "samples_per_s": 160.0, "answer_tokens_per_s": 2000.0, "mfu": 0.25, "skipped": False,
}  # fmt: skip
POINT: dict[str, Any] = {
    "stage_index": 0, "step": 1, "cka": 0.987, "perplexity": 12.5, "seconds": 1.0, "share": 0.011,
    "affinity": {"nearest": 0.5, "wasserstein": 2.0, "mean": 3.0}, "gradient": {"tower": 0.7, "connector": 1.2},
    "update": {"tower": 2e-5, "connector": 3e-4},
}  # fmt: skip


def so_far(**changes: Any) -> RunSoFar:
    stage = StageSoFar("fine", 0)
    for step in range(1, 101):
        stage.take({**LINE, "step": step, "loss": {"next_token": 4.0 / step, "contrastive": 5.0}})
    given: dict[str, Any] = {
        "path": Path("runs/x"),
        "name": "trial",
        "stages": [StageSoFar("coarse", -1, finished=True), stage, StageSoFar("world", 1)],
        "resumed": 2,
        "complete": False,
        "quiet": 0.4,
        "events": [
            {
                "event": "spike",
                "stage": "fine",
                "step": 7,
                "loss": 9.0,
                "score": 11.0,
                "samples": ["a"],
            },
            {"event": "rollback", "stage": "fine", "step": 50, "to_step": 40, "samples": []},
        ],
        "monitoring": [{**POINT, "cka": 1.0}, POINT],
        "proofs": [{"ok": True}],
        "left_out": {"web": Counter(image=3)},
    }
    return RunSoFar(**{**given, **changes})


def drawn(run: RunSoFar, width: int) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(picture(run, width))
    return console.export_text()


@pytest.mark.parametrize("width", [60, 80, 140])
def test_everything_is_there_and_fits(width: int):
    text = drawn(so_far(), width)
    assert max(map(len, text.splitlines())) <= width
    for shown in (
        "trial", "✓ coarse", "▶ fine", "○ world", "resumed 2 times", "25 %", "step 100", "2.5 M tokens", "ETA 10 min",
        "next_token", "contrastive", "samples/s", "answer tokens/s", "25.0 %", "padding", "waiting", "gradient norm",
        "tower", "2e-05", "CKA", "0.987", "12.5", "1.1 %", "1 as planned", "1 spike, 1 rollback", "after step 50",
        "3 of web: 3 image", "running",
    ):  # fmt: skip
        assert shown in text, shown


def test_wide_terminals_stand_side_by_side():
    assert len(drawn(so_far(), 140).splitlines()) < len(drawn(so_far(), 80).splitlines()) - 5


def test_states_are_told_apart():
    assert "complete" in drawn(so_far(complete=True), 80)
    assert "silent for 1 h 0 min" in drawn(so_far(quiet=3600.0), 80)
    assert "no step yet" in drawn(
        so_far(quiet=None, stages=[StageSoFar("coarse", 0)], monitoring=[], events=[]), 80
    )
    assert "1 of 2 FAIL" in drawn(so_far(proofs=[{"ok": True}, {"ok": False}]), 80)


def test_a_run_without_monitoring_plan_or_progress_is_shown_too():
    stage = StageSoFar("fine", 0)
    stage.take({key: value for key, value in LINE.items() if key != "done"})
    text = drawn(so_far(stages=[stage], monitoring=[], events=[], proofs=[], left_out={}), 80)
    assert "ETA" not in text
    assert "CKA" not in text


def test_names_are_no_markup():
    assert "[red]x" in drawn(so_far(name="[red]x"), 80)


def test_sparklines():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([3.0, 3.0], 8) == "▁▁"
    assert sparkline([0, 0, 8, 8, math.nan], 2) == "▁█"
    assert sparkline([math.nan], 5) == sparkline([], 5) == ""
    assert len(sparkline(list(range(1000)), 30)) == 30


def written(path: Path) -> RunFolder:
    run = RunFolder(path)
    plan = [{"name": "fine", "train": {"tower": 1.0}, "length": {"samples": 640}}]
    write_json(run.manifest, {"name": "trial", "stages": [], "resumed": [], "plan": plan})
    append_line(run.metrics, LINE)
    return run


@pytest.fixture
def held(tmp_path: Path) -> Iterator[None]:
    """The run of `written(tmp_path)` has a living process."""
    lock = RunLock(tmp_path / LOCK)
    lock.acquire()
    yield
    lock.release()


@pytest.mark.parametrize("width", [60, 80, 130])
def test_it_fits_24_rows(width: int):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(picture(so_far(), width, 23))
    rows = console.export_text().splitlines()
    assert len(rows) <= 23
    text = "\n".join(rows)
    for shown in ("▶ fine", "ETA 10 min", "next_token", "samples/s", "1 as planned", "running"):
        assert shown in text, shown


def test_the_runs_end_is_told():
    stage = StageSoFar("fine", 0)
    stage.take({**LINE, "seconds": 100.0})
    later = StageSoFar("world", 1, length={"samples": 320})
    text = drawn(so_far(stages=[stage, later]), 80)
    assert "ETA 5 min 0 s  run ETA 8 min 20 s" in text


def test_how_a_run_ended_is_told_at_once(tmp_path: Path):
    assert "complete" in drawn(so_far(complete=True, held=None), 80)
    run = written(tmp_path)
    stopped = CliRunner().invoke(app, ["watch", str(run.path), "--once"]).output
    assert "stopped before its end" in stopped
    assert f"Continue with: sailvit train {run.recipe} --resume" in stopped
    ended = subprocess.Popen(["true"])
    ended.wait()
    lock = RunLock(run.path / LOCK)
    lock.acquire()
    holder = json.loads(lock.path.read_text())
    lock.path.write_text(json.dumps({**holder, "pid": ended.pid, "began": "1"}))
    crashed = CliRunner().invoke(app, ["watch", str(run.path), "--once"]).output
    assert "crashed: its process is gone" in crashed


def test_a_lock_of_another_machine_is_judged_by_its_beat(tmp_path: Path):
    lock = RunLock(tmp_path / LOCK)
    assert is_held(lock.path) is None
    lock.acquire()
    assert is_held(lock.path) is True
    lock.path.write_text(json.dumps({**json.loads(lock.path.read_text()), "machine": "other"}))
    assert is_held(lock.path) is True
    os.utime(lock.path, (1, 1))
    assert is_held(lock.path) is False


def test_once_prints_one_picture(tmp_path: Path):
    run = written(tmp_path)
    result = CliRunner().invoke(app, ["watch", str(run.path), "--once"])
    assert result.exit_code == 0, result.output
    assert "▶ fine" in result.output
    assert "▶ fine" in CliRunner().invoke(app, ["watch", str(run.path)]).output, (
        "a pipe is given one picture"
    )


@pytest.mark.usefixtures("held")
def test_it_follows_until_the_run_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, waits = written(tmp_path), []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            write_json(
                run.manifest,
                {
                    "name": "trial",
                    "stages": [{"index": 0, "name": "fine"}],
                    "resumed": [],
                    "plan": [{"name": "fine", "train": {}, "length": {}}],
                },
            )

    monkeypatch.setattr(module.time, "sleep", sleep)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    result = CliRunner().invoke(app, ["watch", str(run.path), "--every", "0.5"])
    assert result.exit_code == 0, result.output
    assert waits == [0.5] * 3
    assert "complete" in result.output


@pytest.mark.usefixtures("held")
def test_ctrl_c_ends_it_quietly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def sleep(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.time, "sleep", sleep)
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    result = CliRunner().invoke(app, ["watch", str(written(tmp_path).path)])
    assert result.exit_code == 0


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    result = CliRunner().invoke(app, ["watch", str(tmp_path), "--once"])
    assert "holds no run yet" in str(result.exception)


@pytest.mark.usefixtures("held")
def test_a_run_that_is_still_measuring_is_said_to_begin(tmp_path: Path):
    result = CliRunner().invoke(app, ["watch", str(tmp_path), "--once"])
    assert "still measuring data or loading parts" in str(result.exception)


def test_norms_have_columns_only_where_some_were_measured():
    assert "update / weight" in drawn(so_far(), 120)
    assert "update / weight" not in drawn(so_far(monitoring=[]), 120)


def test_it_runs_without_torch(tmp_path: Path):
    run = written(tmp_path)
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['sailvit', 'watch', sys.argv[1], '--once']\n"
        "from sailvit.cli.app import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=False
    )
    assert "▶ fine" in done.stdout, done.stderr
