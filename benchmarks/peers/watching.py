"""What every contender reports, measured in the same way: time and tokens of the steady steps, and peak memory."""

from __future__ import annotations

import resource
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from peers.data import Files
from peers.model import Folders


@dataclass(frozen=True)
class Task:
    """One contender's run of one stage."""

    files: Files
    """The data."""
    model: Folders
    """The model to start from."""
    trains: tuple[str, ...]
    """Parts that train."""
    samples: int
    """Samples of one step, on average where a trainer packs."""
    steps: int
    """Optimizer steps of the run."""
    warmup: int
    """Steps before the steady window."""
    micro: int
    """Samples of a peer's forward pass."""
    packs: int
    """Packs of our step; each is a forward pass."""
    workers: int
    """Loader processes."""
    threads: int
    """Threads of the training process."""
    compile: bool
    """Whether blocks are compiled (ours) or the model (theirs)."""
    mean_tokens: float = 256.0
    """Mean tokens of a sample."""


@dataclass(frozen=True)
class Outcome:
    """What became of it."""

    first_loss: float
    """Mean loss per answer token of the first step."""
    samples: int
    """Samples of the steady steps."""
    answer_tokens: int
    """Tokens with loss in the steady steps."""
    seconds: float
    """Duration of the steady steps."""
    cpu_seconds: float
    """Processor time of the training process in them, its threads together."""
    peak_mib: float
    """Peak memory of the training process and its loader processes, each counted whole."""
    alone_mib: float
    """That of the training process."""

    @property
    def rate(self) -> float:
        """Answer tokens per second."""
        return self.answer_tokens / self.seconds

    def with_another(self, other: Outcome) -> Outcome:
        """Both runs as one: their steady steps in a row, and the higher peak."""
        summed = {
            name: getattr(self, name) + getattr(other, name)
            for name in ("samples", "answer_tokens")
        }
        clocks = {
            name: getattr(self, name) + getattr(other, name) for name in ("seconds", "cpu_seconds")
        }
        peaks = {
            name: max(getattr(self, name), getattr(other, name))
            for name in ("peak_mib", "alone_mib")
        }
        return replace(self, **summed, **clocks, **peaks)

    def values(self) -> dict[str, Any]:
        """As JSON, with what is compared."""
        shown = {key: round(value, 4) for key, value in asdict(self).items()}
        return {**shown, "answer_tokens_per_s": round(self.rate, 1)}


class Watch:
    """Notes what each step did, and sums up the steady ones."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._steps: list[tuple[int, int]] = []
        self._losses: list[float] = []
        self._clocks: list[tuple[float, float]] = []

    def step(self, samples: int, answer_tokens: int, loss: float) -> None:
        """A step has ended."""
        self._steps.append((samples, answer_tokens))
        self._losses.append(loss)
        self._clocks.append((time.perf_counter(), time.process_time()))

    def outcome(self) -> Outcome:
        """The figures; asked for when loader processes have ended."""
        steady = self._steps[self._task.warmup :]
        begin, end = self._clocks[self._task.warmup - 1], self._clocks[-1]
        alone = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        # The largest child's peak; workers are alike.
        worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        return Outcome(
            first_loss=self._losses[0],
            samples=sum(step[0] for step in steady),
            answer_tokens=sum(step[1] for step in steady),
            seconds=end[0] - begin[0],
            cpu_seconds=end[1] - begin[1],
            peak_mib=alone + self._task.workers * worker,
            alone_mib=alone,
        )


def scratch(task: Task, name: str) -> Path:
    """A folder for what a trainer writes."""
    return task.model.folder.parent / "runs" / name
