"""The lock on a run folder: one writer at a time, on one machine and on several; a dead writer makes way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sailvit.core import lock as module
from sailvit.core.errors import RunError
from sailvit.core.lock import RunLock, living_holder

HOLD = """
import sys, time
from pathlib import Path
from sailvit.core.lock import RunLock
RunLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


def holding(path: Path) -> subprocess.Popen[str]:
    """A process that has the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_living_process_is_named_and_a_killed_one_makes_way(tmp_path: Path):
    path = tmp_path / "run.lock"
    process = holding(path)
    try:
        with pytest.raises(RunError, match=rf"process {process.pid} on {os.uname().nodename} "):
            RunLock(path).acquire()
        assert living_holder(path) is not None
    finally:
        # Not waited for: a process that has ended and was not fetched is dead, too.
        process.kill()
    time.sleep(0.2)
    assert living_holder(path) is None
    lock = RunLock(path)
    assert lock.acquire() is True
    assert json.loads(path.read_text())["pid"] == os.getpid()
    lock.release()
    process.wait()
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_is_used_again_is_another_process(tmp_path: Path):
    path = tmp_path / "run.lock"
    me = replace(module._this_process(), began="1")
    path.write_text(json.dumps(asdict(me)))
    assert RunLock(path).acquire() is True


def test_of_many_that_start_at_once_one_gets_the_folder(tmp_path: Path):
    """Over a lock that was left, and over none."""
    path = tmp_path / "new" / "run.lock"
    dead = replace(module._this_process(), began="1", token="dead")
    for left in (False, True):
        if left:
            path.parent.mkdir()
            path.write_text(json.dumps(asdict(dead)))
        won: list[RunLock] = []
        refused: list[str] = []
        gate = threading.Barrier(8)

        def start(
            gate: threading.Barrier = gate,
            won: list[RunLock] = won,
            refused: list[str] = refused,
        ) -> None:
            lock = RunLock(path)
            gate.wait()
            try:
                lock.acquire()
                won.append(lock)
            except RunError as error:
                refused.append(str(error))

        threads = [threading.Thread(target=start) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), len(refused)) == (1, 7)
        won[0].release()
        if path.parent.exists():
            assert list(path.parent.iterdir()) == []
            path.parent.rmdir()


@pytest.mark.parametrize("beats", [True, False])
def test_another_machine_is_judged_by_its_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beats: bool
):
    monkeypatch.setattr(module, "PATIENCE", 0.6)
    monkeypatch.setattr(module, "_POLL", 0.05)
    path = tmp_path / "run.lock"
    other = replace(module._this_process(), host="node7", machine="node7 1", pid=4, token="other")
    path.write_text(json.dumps(asdict(other)))
    stop = threading.Event()

    def beat() -> None:
        while beats and not stop.wait(0.05):
            os.utime(path)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        if beats:
            with pytest.raises(RunError, match="process 4 on node7"):
                RunLock(path).acquire()
        else:
            assert RunLock(path).acquire() is True
    finally:
        stop.set()
        thread.join()


def test_a_holder_notices_that_it_was_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "HEARTBEAT", 0.02)
    path = tmp_path / "run.lock"
    lock = RunLock(path)
    lock.acquire()
    before = path.stat().st_mtime_ns
    time.sleep(0.2)
    assert path.stat().st_mtime_ns > before
    lock.check()
    other = replace(module._this_process(), pid=5, host="node8", token="other")
    path.write_text(json.dumps(asdict(other)))
    time.sleep(0.2)
    with pytest.raises(RunError, match="was taken over by process 5 on node8"):
        lock.check()
    lock.release()
    assert json.loads(path.read_text())["token"] == "other"


def test_without_hard_links_it_holds_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "run.lock"
    lock = RunLock(path)
    assert lock.acquire() is False
    with pytest.raises(RunError, match=f"process {os.getpid()} "):
        RunLock(path).acquire()
    lock.release()
    assert not path.exists()


def test_a_lock_that_says_nothing_is_left_when_it_does_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    monkeypatch.setattr(module, "_POLL", 0.05)
    path = tmp_path / "run.lock"
    path.touch()
    assert RunLock(path).acquire() is True


def test_a_folder_that_cannot_be_made_is_named_and_one_that_was_made_goes(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file/run cannot be written \(Not a directory\)"):
        RunLock(tmp_path / "file/run/run.lock").acquire()
    lock = RunLock(tmp_path / "a/b/run.lock")
    lock.acquire()
    lock.release()
    assert not (tmp_path / "a").exists()
