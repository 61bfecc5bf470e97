"""Drafts of new folders: what a killed process leaves goes with the next one, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sailvit.core.errors import RunError
from sailvit.interop.new_folder import new_folder

_KILLED = """
import sys, time
from pathlib import Path
from sailvit.interop.new_folder import new_folder
with new_folder(Path(sys.argv[1])) as draft:
    (draft / "weights").write_text("half")
    print("begun", flush=True)
    time.sleep(60)
"""


def begun(out: Path) -> subprocess.Popen[str]:
    """A process that stands in the middle of writing `out`."""
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(out)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def fail(out: Path) -> None:
    """Stop while `out` is written."""
    with new_folder(out) as draft:
        (draft / "weights").write_text("half")
        raise ValueError("no")


def test_what_a_killed_process_left_goes_and_a_living_one_s_stays(tmp_path: Path):
    out = tmp_path / "out"
    killed, living = begun(out), begun(out)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    # Somebody's own folder of such a name has no lock of ours.
    own = tmp_path / ".out.1.part"
    own.mkdir()
    (own / "thesis.txt").write_text("mine")
    other = tmp_path / ".other.1.part"
    other.mkdir()
    assert len(list(tmp_path.iterdir())) == 4
    with new_folder(out) as draft:
        (draft / "weights").write_text("whole")
    kept = {".out.1.part", ".other.1.part", f".out.{living.pid}.part", "out"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert (own / "thesis.txt").read_text() == "mine"
    assert [path.name for path in out.iterdir()] == ["weights"]
    living.kill()
    living.wait()


def test_an_error_leaves_nothing(tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="no"):
        fail(out)
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="is there already"), new_folder(out):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert os.listdir(out) == ["thesis.txt"]  # noqa: PTH208
