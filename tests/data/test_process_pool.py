"""Jobs on several processes and on Ray: order, bounds, errors, and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from many_formats import opened, tree, write_llava
from process_pool_tasks import Doubled, Dying, Refusing

from sailvit.core.errors import DataError, SailvitError
from sailvit.data.process_pool import in_order, map_ordered
from sailvit.dataprep.prepare.preparing import PrepareConfig, prepare
from sailvit.distributed import ray_cluster


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_the_order_of_the_jobs(workers):
    assert list(map_ordered(Doubled(), range(30), workers=workers)) == list(range(0, 60, 2))


def test_few_jobs_are_handed_out_ahead():
    handed = []
    results = in_order(
        lambda job: handed.append(job) or job, lambda job: job, iter(range(100)), most=5
    )
    assert next(results) == 0
    assert handed == [0, 1, 2, 3, 4]
    assert list(results) == list(range(1, 100))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_refusal_arrives_as_it_was_meant(workers):
    with pytest.raises(DataError, match="three is refused") as caught:
        list(map_ordered(Refusing(), range(10), workers=workers))
    assert caught.value.kind == "three"


def test_a_process_that_dies_is_noticed():
    with pytest.raises(SailvitError, match="fewer --workers"):
        list(map_ordered(Dying(), range(10), workers=2))


ORPHANS = """
import os, sys, time
sys.path.insert(0, {folder!r})
from process_pool_tasks import Endless
from sailvit.data.process_pool import map_ordered

if __name__ == "__main__":
    list(map_ordered(Endless(), range(4), workers=2))
"""


def test_no_process_outlives_the_one_that_started_it(tmp_path):
    (tmp_path / "script.py").write_text(ORPHANS.format(folder=str(Path(__file__).parent)))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, env=environment)
    wait_for(lambda: len(list(tmp_path.glob("process-*"))) == 2)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    processes = [int(path.name.split("-")[1]) for path in tmp_path.glob("process-*")]
    wait_for(lambda: not any(running(process) for process in processes))


def wait_for(condition) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def running(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_without_ray_the_extra_is_named(monkeypatch, tmp_path):
    def missing(name: str):
        raise ImportError(name)

    monkeypatch.setattr(ray_cluster, "import_module", missing)
    with pytest.raises(SailvitError, match=r"sailvit\[ray\]"):
        prepare({"set": opened(write_llava(tmp_path / "in"))}, tmp_path / "out", workers="ray")


@pytest.mark.slow
def test_a_cluster_writes_the_same_bytes(tmp_path):
    pytest.importorskip("ray")
    source = {"set": opened(write_llava(tmp_path / "in", 23, bad=(4,)))}
    prepare(source, tmp_path / "here", config=PrepareConfig(shard_samples=5))
    prepare(source, tmp_path / "there", config=PrepareConfig(shard_samples=5), workers="ray")
    assert tree(tmp_path / "there") == tree(tmp_path / "here")
