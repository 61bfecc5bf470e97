"""Following a run from outside: what is read, once each, whatever the run does to its files."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from written_run import write_run

from sailvit.core.errors import RunError
from sailvit.core.run import RunFolder, append_line, read_json, write_json
from sailvit.report.following import Follower, Growing


def put(path: Path, *values: int) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps({"n": value}) + "\n" for value in values)


def test_only_complete_new_lines_are_given(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    growing = Growing(path)
    assert growing.news() == ([], False)
    put(path, 1, 2)
    with path.open("a") as file:
        file.write('{"n": ')
    assert growing.news() == ([{"n": 1}, {"n": 2}], False)
    assert growing.news() == ([], False)
    with path.open("a") as file:
        file.write("3}\n")
    assert growing.news() == ([{"n": 3}], False)


def test_a_file_that_was_replaced_cut_or_removed_begins_anew(tmp_path: Path):
    path, draft = tmp_path / "x.jsonl", tmp_path / "draft"
    growing = Growing(path)
    put(path, 1, 2, 3)
    growing.news()
    put(draft, 1, 2, 3, 4)
    draft.replace(path)
    assert growing.news() == ([{"n": n} for n in (1, 2, 3, 4)], True)
    path.write_text('{"n": 1}\n')
    assert growing.news() == ([{"n": 1}], True)
    path.unlink()
    assert growing.news() == ([], True)
    assert growing.news() == ([], False)
    put(path, 9)
    assert growing.news()[0] == [{"n": 9}]


def begun(tmp_path: Path, *, plan: bool = True) -> RunFolder:
    """A run in the middle of the second of three stages."""
    run = write_run(tmp_path / "run", steps=40)
    kept = [
        line
        for line in run.metrics.read_text().splitlines(keepends=True)
        if json.loads(line)["stage_index"] < 2
    ]
    run.metrics.write_text("".join(kept[:60]))
    manifest = read_json(run.manifest)
    if plan:
        manifest["plan"] = [
            {"name": name, "train": {"connector": 1.0}, "length": {"samples": 640}}
            for name in ("a", "b", "c")
        ]
    manifest["stages"] = manifest["stages"][:1]
    write_json(run.manifest, manifest)
    run.proofs.unlink()
    return run


def test_a_run_in_progress_shows_where_it_stands(tmp_path: Path):
    seen = Follower(begun(tmp_path)).read()
    assert [(stage.name, stage.finished, stage.done) for stage in seen.stages] == [
        ("coarse", True, 1.0), ("fine", False, 0.5), ("c", False, 0.0)
    ]  # fmt: skip
    stage = seen.stage
    assert stage is not None
    assert (stage.index, stage.last["step"], len(stage.columns["loss/contrastive"])) == (1, 20, 20)
    assert stage.seconds == pytest.approx(20 * 16 / 170)
    assert stage.left == pytest.approx(stage.seconds)
    assert "mfu" not in stage.columns, "it was not measured"
    assert stage.columns["wait"][0] == pytest.approx(0.02)
    assert not seen.complete
    assert seen.quiet is not None
    assert seen.quiet < 60


def test_the_share_done_is_the_runs_own_where_it_says_so(tmp_path: Path):
    run = begun(tmp_path, plan=False)
    follower = Follower(run)
    assert follower.read().stages[1].done is None
    line = {
        **json.loads(run.metrics.read_text().splitlines()[-1]),
        "step": 21,
        "done": 0.75,
        "skipped": True,
    }
    append_line(run.metrics, line)
    stage = follower.read().stage
    assert stage is not None
    assert (stage.done, stage.skipped) == (0.75, 1)
    assert stage.left == pytest.approx(stage.seconds / 3)


def test_a_resumed_run_is_read_again_from_its_beginning(tmp_path: Path):
    run = begun(tmp_path)
    follower = Follower(run)
    follower.read()
    kept = run.metrics.read_text().splitlines(keepends=True)[:50]
    (tmp_path / "draft").write_text("".join(kept))
    (tmp_path / "draft").replace(run.metrics)
    stage = follower.read().stage
    assert stage is not None
    assert (stage.last["step"], len(stage.columns["padding"])) == (10, 10)


def test_a_run_is_complete_when_every_stage_is_done(tmp_path: Path):
    run = begun(tmp_path)
    follower = Follower(run)
    manifest = read_json(run.manifest)
    manifest["stages"] = [{"index": index, "name": name} for index, name in enumerate("abc")]
    write_json(run.manifest, manifest)
    assert follower.read().complete
    old = write_run(tmp_path / "old", steps=3)
    assert Follower(old).read().complete
    old.state.mkdir()
    assert not Follower(old).read().complete, (
        "without a plan, a state means that there is more to come"
    )


def test_what_was_left_out_is_counted_over_all_ranks(tmp_path: Path):
    run = begun(tmp_path)
    follower = Follower(run)
    assert follower.read().left_out == {}
    bad: dict[str, Any] = {"stage_index": 0, "step": 1, "source": "web", "kind": "image"}
    bad |= {"position": 7, "reason": "it is cut"}
    append_line(run.path / "quarantine.jsonl", bad)
    append_line(run.path / "quarantine-3.jsonl", {**bad, "count": 4, "rank": 3})
    assert follower.read().left_out == {"web": {"image": 5}}
    append_line(run.path / "quarantine-3.jsonl", {**bad, "kind": "text", "rank": 3})
    assert follower.read().left_out == {"web": {"image": 5, "text": 1}}


def test_silence_is_measured_from_the_last_step(tmp_path: Path):
    run = begun(tmp_path)
    hour_ago = time.time() - 3600
    os.utime(run.metrics, (hour_ago, hour_ago))
    quiet = Follower(run).read().quiet
    assert quiet == pytest.approx(3600, abs=60)


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    with pytest.raises(RunError, match=r"no run.*manifest\.json"):
        Follower(RunFolder(tmp_path)).read()
