"""Studies on a Ray cluster: the same cells, failures told, and trainings that save when stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sailvit.api.study import ray_workers
from sailvit.api.study.ray_workers import RayWorkers
from sailvit.api.study.tasks import Outcome
from sailvit.core.errors import SailvitError
from sailvit.core.run import read_json
from sailvit.distributed import ray_cluster
from tiny_studies import trainable, write_study

DYING = """import os
from sailvit import Objective


class Raises(Objective):
    def units(self, batch):
        return 1

    def forward(self, model, activations, batch):
        raise KeyError('out of luck')


class Exits(Raises):
    def forward(self, model, activations, batch):
        os._exit(3)
"""


class FakeRay:
    """A cluster of two GPUs of which every task gives what the test says."""

    exceptions = SimpleNamespace(RayError=type("RayError", (Exception,), {}))

    def __init__(self, gives: Callable[[], Outcome]) -> None:
        self.gives, self.cancelled, self.asked = gives, [], {}

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 16.0, "GPU": 2.0}

    def remote(self, **asked: Any) -> Callable[..., Any]:
        self.asked = asked
        return lambda function: SimpleNamespace(remote=lambda *given: object())

    def wait(self, tasks: list[object], timeout: float | None) -> tuple[list[object], list[object]]:
        return tasks[:1], tasks[1:]

    def get(self, task: object) -> Outcome:
        return self.gives()

    def cancel(self, task: object, *, force: bool = False) -> None:
        self.cancelled.append(task)


def test_each_task_asks_for_a_gpu_and_failures_are_told(monkeypatch, tmp_path):
    def dies() -> Outcome:
        raise FakeRay.exceptions.RayError("ray::_perform\nKeyError: 'out of luck'\n")

    ray = FakeRay(dies)
    monkeypatch.setattr(ray_workers, "connected_ray", lambda: ray)
    workers = RayWorkers()
    assert workers.count == 2
    assert (ray.asked["num_gpus"], ray.asked["num_cpus"]) == (1, 1)
    first, second = (workers.start(number, tmp_path / "log") for number in range(2))
    first.give(SimpleNamespace())
    second.give(SimpleNamespace())
    assert workers.answered([first, second], None) == [first]
    outcome = first.outcome()
    assert outcome.state == "failed"
    assert "KeyError: 'out of luck'" in outcome.told
    assert str(tmp_path / "log") in outcome.told
    running = second.task
    for worker in (first, second):
        worker.stop()
        worker.wait()
    assert ray.cancelled == [running]


def test_what_a_task_raises_lies_in_its_log(monkeypatch, tmp_path):
    def fails(task: Any) -> Outcome:
        raise RuntimeError("size mismatch:\n\tlayer 3")

    monkeypatch.setattr(ray_workers, "perform", fails)
    with pytest.raises(RuntimeError):
        ray_workers._perform(SimpleNamespace(), tmp_path / "logs" / "log")
    told = (tmp_path / "logs" / "log").read_text()
    assert told.startswith("Traceback")
    assert "size mismatch" in told


@pytest.mark.parametrize("error", [ConnectionError, ValueError, RuntimeError])
def test_a_cluster_that_cannot_be_used_is_told_in_a_sentence(monkeypatch, error):
    def init(**given: Any) -> None:
        raise error("Invalid address format: head")

    fake = SimpleNamespace(is_initialized=lambda: False, init=init)
    monkeypatch.setattr(ray_cluster, "import_module", lambda name: fake)
    monkeypatch.setenv("RAY_ADDRESS", "head")
    with pytest.raises(SailvitError, match=r"RAY_ADDRESS=head \(Invalid address format: head\)"):
        ray_cluster.connected_ray()


@pytest.mark.slow
def test_a_cluster_measures_the_cells_that_one_machine_does(tmp_path: Path):
    pytest.importorskip("ray")
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        write_study(folder, trainable(folder))
    assert "3 of 3 cells" in run_study(here, "--jobs", "1").stdout
    assert "3 of 3 cells" in run_study(there, "--ray").stdout
    assert values(there) == values(here)
    assert len(values(here)) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "why"), [("Raises", "KeyError: 'out of luck'"), ("Exits", "Ray cluster")]
)
def test_a_failing_task_fails_its_cells_alone(tmp_path: Path, objective: str, why: str):
    pytest.importorskip("ray")
    given = trainable(tmp_path)
    (tmp_path / "dying.py").write_text(DYING)
    dies = {"stages.all.objectives": {f"dying:{objective}": 1.0}}
    given["factors"]["arm"]["gradual"] = {"refine": {"set": dies}}
    write_study(tmp_path, given)
    found = run_study(tmp_path, "--ray")
    assert found.returncode == 1
    assert "2 of 3 cells" in found.stdout
    assert why in read_json(tmp_path / "trained/cells/gradual,seed=0.json")["reason"]
    logs = [log.read_text() for log in tmp_path.glob("runs/logs/*.log")]
    # A process that exits has nothing to tell.
    assert any("Traceback" in log and why in log for log in logs) == (objective == "Raises")


@pytest.mark.slow
def test_a_stopped_study_saves_what_trains_on_the_cluster(tmp_path: Path):
    pytest.importorskip("ray")
    given = trainable(tmp_path)
    # Long enough to be stopped in its middle.
    given["factors"]["arm"]["gradual"] = {
        "refine": {"set": {"stages.warm.length.samples": 400_000}}
    }
    write_study(tmp_path, given)
    process = subprocess.Popen(command(tmp_path, "--ray"), cwd=tmp_path, env=environment(tmp_path))
    try:
        wait_for(lambda: any(tmp_path.glob("runs/refine-warm-*/metrics.jsonl")))
        time.sleep(3)
        process.send_signal(signal.SIGTERM)
        # 75: it can go on (os.EX_TEMPFAIL).
        assert process.wait(100) == os.EX_TEMPFAIL
    finally:
        process.kill()
    assert len(list(tmp_path.glob("runs/refine-warm-*/state/*/complete.json"))) == 1


def run_study(folder: Path, *given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *given),
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment(folder),
    )


def command(folder: Path, *given: str) -> list[str]:
    runs = str(folder / "runs")
    return [sys.executable, "-m", "sailvit", "study", "trained.yaml", "--runs", runs, *given]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{folder}"}


def values(folder: Path) -> dict[str, Any]:
    return {
        path.name: read_json(path)["values"] for path in (folder / "trained/cells").glob("*.json")
    }


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
