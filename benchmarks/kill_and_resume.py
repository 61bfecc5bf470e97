"""Kills a training run at random moments, resumes it, and compares it with the undisturbed run bit for bit.

    python benchmarks/kill_and_resume.py --kills 20

Every trial is a run of three stages of its own, started by the command line, killed with SIGKILL (every fourth time a
data worker instead, so that the run fails on its own) and started again by the same command until it is complete.
Metrics, clocks aside, and the weights of every saved part must then equal the undisturbed run's.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publish import publish

from sailvit.core.run import RunFolder, read_lines

CLOCKS = ("seconds", "wait", "samples_per_s", "answer_tokens_per_s", "mfu")
"""Fields of a metrics line that no two runs share."""


@dataclass(frozen=True)
class Trial:
    """One disturbed run."""

    kills: int
    """Times it was really killed before its end."""
    exact: bool
    """Whether it ended as the undisturbed run did."""


def command(folder: Path) -> list[str]:
    """The demo's recipe, short and with many saves, resumed by the recipe itself."""
    settings = {
        "checkpoint.every": 7,
        "resume": "auto",
        "workers": 1,
        "proof_steps": 5,
        **{f"stages.{index}.length.samples": 500 for index in range(3)},
    }
    changes = [item for name, value in settings.items() for item in ("--set", f"{name}={value}")]
    return [sys.executable, "-m", "sailvit", "train", "demo", "--run", str(folder), *changes]


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The run's process, in a group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command(folder), env=environment, start_new_session=True, **quiet)  # type: ignore[call-overload, no-any-return]


def workers_of(process: int) -> list[int]:
    """Processes that `process` started."""
    children = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in children.read_text().split()] if children.exists() else []


def disturb(folder: Path, rng: random.Random, longest: float, *, worker: bool) -> bool:
    """Start or continue the run and kill it, or one of its workers, at a random moment; whether that hit it."""
    process = start(folder)
    deadline = time.monotonic() + rng.uniform(0.0, longest)
    metrics = RunFolder(folder).metrics
    # Most of the time goes into starting; the clock runs from the first step that this process writes.
    before = sum(1 for _ in read_lines(metrics))
    began = None
    while process.poll() is None:
        if began is None and sum(1 for _ in read_lines(metrics)) != before:
            began = time.monotonic()
            deadline = began + rng.uniform(0.0, longest)
        if began is not None and time.monotonic() > deadline:
            victims = workers_of(process.pid) if worker else []
            os.kill(rng.choice(victims) if victims else process.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    return process.wait() != 0


def finish(folder: Path) -> None:
    """Continue the run to its end."""
    code = start(folder).wait()
    if code:
        raise SystemExit(
            f"the run in {folder} did not end well (exit code {code}); see {' '.join(command(folder))}"
        )


def outcome(folder: Path) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Metrics without clocks, and the bytes of every saved part."""
    run = RunFolder(folder)
    lines = [
        {key: value for key, value in line.items() if key not in CLOCKS}
        for line in read_lines(run.metrics)
    ]
    files = sorted(folder.glob("stages/*/*/*.safetensors"))
    return lines, {str(file.relative_to(folder)): file.read_bytes() for file in files}


def main() -> None:
    """Run every trial and say how many were exact."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began, rng = time.perf_counter(), random.Random(given.seed)
    with tempfile.TemporaryDirectory() as place:
        finish(Path(place) / "whole")
        whole = outcome(Path(place) / "whole")
        longest = sum(
            line["seconds"] for line in read_lines(RunFolder(Path(place) / "whole").metrics)
        )
        trials: list[Trial] = []
        while sum(trial.kills for trial in trials) < given.kills:
            folder, kills = Path(place) / f"trial-{len(trials)}", 0
            # Up to four kills of one run, so that resumed runs are killed too.
            for turn in range(min(4, given.kills - sum(trial.kills for trial in trials))):
                kills += disturb(folder, rng, longest, worker=turn == 3)
            finish(folder)
            trials.append(Trial(kills, outcome(folder) == whole))
    done = sum(trial.kills for trial in trials)
    exact = sum(trial.kills for trial in trials if trial.exact)
    text = " ".join(["python benchmarks/kill_and_resume.py", *sys.argv[1:]])
    values = {"kills": done, "bit_exact": exact, "runs": len(trials), "steps": len(whole[0])}
    publish("kill_and_resume", text, {**values, "seconds": round(time.perf_counter() - began)})
    print(f"{exact}/{done} bit-exact")


if __name__ == "__main__":
    main()
