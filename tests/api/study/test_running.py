"""Studies that train: each training once, failures listed, and nothing computed twice after a stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sailvit.api.study import running
from sailvit.api.study.running import StudyRun
from sailvit.api.study.studies import prepared, report_study
from sailvit.api.study.tasks import Outcome, Task, TrainTask, perform
from sailvit.api.study.workers import LocalWorkers
from sailvit.core.run import read_json
from sailvit.core.study.cells import cells_of
from sailvit.core.study.folder import StudyFolder
from sailvit.evaluation.studies.results import results
from sailvit.recipes.studies import load_study
from tiny_studies import trainable, write_study


class Here:
    """Stands in for workers: a task is done in this process when its outcome is asked for."""

    count = 1
    alive = True
    tasks: list[Task] = []

    def start(self, number: int, log: Path) -> Here:
        return Here()

    def answered(self, workers: list[Here], timeout: float | None) -> list[Here]:
        return workers[:1]

    def give(self, task: Task) -> None:
        self.task = task

    def outcome(self) -> Outcome:
        Here.tasks.append(self.task)
        return perform(self.task)

    def stop(self) -> None:
        pass

    wait = stop


@pytest.fixture
def here(monkeypatch):
    Here.tasks = []
    monkeypatch.setattr(running, "LocalWorkers", lambda count: Here())
    # Half of a tiny training's time goes into the page of its run.
    monkeypatch.setattr("sailvit.api.running.write_report", lambda folder: None)
    return Here


def study_run(path: Path, **changes) -> StudyRun:
    given = load_study(path)
    folder = StudyFolder(path.with_suffix(""))
    folder.begin(given)
    lineage, planned = prepared(given, cells_of(given), path.parent / "runs")
    return StudyRun(lineage, planned, folder, **changes)


def test_every_training_is_done_once_and_every_cell_measured(tmp_path: Path, here):
    events = []
    run = study_run(write_study(tmp_path, trainable(tmp_path)), seen=events.append)
    assert run.run() == dict.fromkeys(("base,seed=0", "gradual,seed=0", "warm,seed=0"), "done")
    trained = [task.folder.name for task in here.tasks if isinstance(task, TrainTask)]
    # Three target trainings, and two stages of which `warm` shares the first.
    assert len(trained) == len(set(trained)) == 5
    assert [event.trained for event in events][-1] == (5, 5)
    cell = read_json(tmp_path / "trained/cells/gradual,seed=0.json")
    assert [each["samples"] for each in cell["trainings"]] == [6, 6, 6]
    assert cell["values"]["world"]["answers"].keys() == {"colour"}
    assert (tmp_path / "trained/cells/gradual,seed=0.json").stat().st_size < 4000

    here.tasks.clear()
    # Written otherwise, the study is another version of the same trainings: they stay in its report.
    path = write_study(tmp_path, trainable(tmp_path, set={"workers": 0}))
    assert results(load_study(path), [cell])["cells"]["done"] == 0
    again = study_run(path)
    assert set(again.run().values()) == {"done"}
    assert here.tasks == []
    found = results(load_study(path), StudyFolder(tmp_path / "trained").read_cells())["cells"]
    assert (found["done"], found["of another version"]) == (3, [])


@pytest.mark.parametrize(("count", "each"), [(1, 6), (2, 3), (8, 1)])
def test_processes_share_the_threads_that_torch_may_use(
    count: int, each: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert LocalWorkers(count).threads == each


def test_what_was_done_before_a_stop_is_not_done_again(tmp_path: Path, here):
    path = write_study(tmp_path, trainable(tmp_path))

    def stop(event) -> None:
        if len(here.tasks) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(running.InterruptedRunError, match="The same command goes on"):
        study_run(path, seen=stop).run()
    before = [task for task in here.tasks if isinstance(task, TrainTask)]
    here.tasks.clear()
    study_run(path).run()
    after = [task for task in here.tasks if isinstance(task, TrainTask)]
    assert len(before) + len(after) == 5
    assert not {task.folder for task in before} & {task.folder for task in after}


def test_a_cell_is_done_again_and_compared_in_another_place(tmp_path: Path, here):
    """As in a fresh clone: the study with its cells, and none of its trainings."""
    first = tmp_path / "first"
    first.mkdir()
    study_run(write_study(first, trainable(first))).run()
    clone = shutil.copytree(first, tmp_path / "clone", ignore=shutil.ignore_patterns("runs"))
    shutil.rmtree(first)
    for recipe in clone.glob("*.yaml"):
        # The tiny recipes name their parts and data by absolute paths.
        recipe.write_text(recipe.read_text().replace(str(first), str(clone)))
    here.tasks.clear()
    path, events = clone / "trained.yaml", []
    # Its cells are those of the study here too, so that the command alone has nothing to do.
    assert set(study_run(path).run().values()) == {"done"}
    assert here.tasks == []

    run = study_run(path, again=True, seen=events.append)
    run.planned = [each for each in run.planned if each.cell.name == "gradual,seed=0"]
    file = clone / "trained/cells/gradual,seed=0.json"
    before = file.read_text()
    assert run.run() == {"gradual,seed=0": "done"}
    assert len(here.tasks) == 4
    assert events[0].kind == "begins"
    assert "refine-warm (6 samples), refine-all (6 samples), target-tune (6" in events[0].told
    assert "on the machine of its file; 0 trainings there already" in events[0].told
    assert events[-1].told.endswith("(+0.00). The file stays as it is")
    assert file.read_text() == before


def test_a_file_that_differs_is_kept_and_the_other_cell_lies_beside(tmp_path: Path, here):
    path = write_study(tmp_path, trainable(tmp_path))
    study_run(path).run()
    file = tmp_path / "trained/cells/base,seed=0.json"
    held = read_json(file)
    mean = held["values"]["world"]["mean"]
    held["values"]["world"]["mean"] = mean + 0.25
    held["versions"]["torch"] = "1.0"
    file.write_text(json.dumps(held))
    events = []
    run = study_run(path, again=True, seen=events.append)
    run.planned = run.planned[:1]
    assert run.run() == {"base,seed=0": "done"}
    assert read_json(file) == held
    told = f"world {100 * mean:.2f} points, {100 * mean + 25:.2f} in the file (-25.00)"
    assert told in events[-1].told
    assert "other versions here: torch" in events[-1].told
    beside = tmp_path / "runs/cells/base,seed=0.json"
    assert str(beside) in events[-1].told
    assert read_json(beside)["values"]["world"]["mean"] == mean


def test_a_failing_training_is_listed_with_every_cell_that_needs_it(tmp_path: Path, here):
    values = trainable(tmp_path)
    values["factors"]["arm"]["gradual"] = {"refine": {"set": {"stages.all.optim.lr": 1e30}}}
    path = write_study(tmp_path, values)
    told = study_run(path).run()
    assert told == {"base,seed=0": "done", "warm,seed=0": "done", "gradual,seed=0": "failed"}
    cell = read_json(tmp_path / "trained/cells/gradual,seed=0.json")
    assert cell["reason"].startswith("training refine-all-")
    found = report_study(StudyFolder(tmp_path / "trained"))
    assert list(found["cells"]["failed"]) == ["gradual,seed=0"]
    text = (tmp_path / "trained/report/tables.md").read_text()
    assert "- gradual,seed=0: training refine-all-" in text


@pytest.mark.slow
def test_a_training_that_another_machine_does_is_waited_for(tmp_path: Path, here, monkeypatch):
    monkeypatch.setattr(running, "_LATER", 0.05)
    answers = [Outcome("busy", "process 1 on other")]
    real = Here.outcome

    def outcome(self) -> Outcome:
        return answers.pop() if answers else real(self)

    monkeypatch.setattr(Here, "outcome", outcome)
    events = []
    run = study_run(write_study(tmp_path, trainable(tmp_path)), seen=events.append)
    assert set(run.run().values()) == {"done"}
    assert [event.kind for event in events].count("waiting") == 1
    assert [event.kind for event in events].count("trained") == 5


def test_a_study_ends_where_only_failed_cells_need_another_machines_training(
    tmp_path: Path, here, monkeypatch
):
    outcomes = {"theirs": Outcome("busy", "pid 1 on other"), "ours": Outcome("failed", "nan")}
    monkeypatch.setattr(here, "outcome", lambda self: outcomes[self.task])
    monkeypatch.setattr(running, "is_done", lambda folder, each: False)
    monkeypatch.setattr(running, "write_failed", lambda *told: None)
    # A study that does not end fails here, as it would wait again and again.
    monkeypatch.setattr(running, "_LATER", 1e3)
    monkeypatch.setattr(running.time, "sleep", lambda seconds: pytest.fail("still waits"))
    trainings = {key: SimpleNamespace(key=key, folder=key, parents=frozenset()) for key in outcomes}
    lineage: Any = SimpleNamespace(
        trainings=trainings, run=lambda training: SimpleNamespace(path=tmp_path / training.key)
    )
    cell: Any = SimpleNamespace(cell=SimpleNamespace(name="only"), trainings=tuple(outcomes))
    run = StudyRun(lineage, [cell], StudyFolder(tmp_path))
    run._idle.append(here())
    monkeypatch.setattr(run, "_training", lambda key: key)
    assert run.run() == {"only": "failed"}


@pytest.mark.slow
def test_cells_of_a_changed_study_are_run_again(tmp_path: Path, here):
    values = trainable(tmp_path)
    study_run(write_study(tmp_path, values)).run()
    here.tasks.clear()
    values["steps"]["target"]["scale"] = 1.5
    study_run(write_study(tmp_path, values)).run()
    trained = [task.folder.name for task in here.tasks if isinstance(task, TrainTask)]
    assert len(trained) == 3
    assert all(name.startswith("target-tune-") for name in trained)


def command(path: Path) -> list[str]:
    runs = str(path.parent / "runs")
    return [sys.executable, "-m", "sailvit", "study", str(path), "--runs", runs, "--jobs", "1"]


@pytest.mark.slow
def test_a_killed_study_leaves_no_process_and_goes_on(tmp_path: Path):
    path = write_study(tmp_path, trainable(tmp_path))
    process = subprocess.Popen(command(path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    manifests = "runs/*/manifest.json"
    until = time.monotonic() + 300
    while not any(json.loads(m.read_text())["stages"] for m in tmp_path.glob(manifests)):
        assert time.monotonic() < until
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < until
        time.sleep(0.1)
    ended = {
        manifest: manifest.stat().st_mtime_ns
        for manifest in tmp_path.glob(manifests)
        if json.loads(manifest.read_text())["stages"]
    }
    assert ended
    told = subprocess.run(command(path), capture_output=True, text=True, check=True).stdout
    assert "3 of 3 cells" in told
    assert {manifest: manifest.stat().st_mtime_ns for manifest in ended} == ended


@pytest.mark.slow
def test_a_process_that_dies_is_a_failure_with_its_last_words(tmp_path: Path):
    values = trainable(tmp_path)
    (tmp_path / "dying.py").write_text(
        "import os\nfrom sailvit import Objective\n\n\nclass Dies(Objective):\n"
        "    def units(self, batch):\n        return 1\n\n"
        "    def forward(self, model, activations, batch):\n        raise KeyError('out of luck')\n"
    )
    dies = {"stages.all.objectives": {"dying:Dies": 1.0}}
    values["factors"]["arm"]["gradual"] = {"refine": {"set": dies}}
    path = write_study(tmp_path, values)
    environment = {**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{tmp_path}"}
    found = subprocess.run(
        command(path), capture_output=True, text=True, check=False, env=environment
    )
    assert found.returncode == 1
    assert "2 of 3 cells" in found.stdout
    reason = read_json(tmp_path / "trained/cells/gradual,seed=0.json")["reason"]
    assert "ended by exit code 1" in reason
    assert "KeyError: 'out of luck'" in reason
