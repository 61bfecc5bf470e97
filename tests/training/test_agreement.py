"""What one of two processes finds, both act on: they go on together or stop together."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sailvit.checkpoint import store
from sailvit.checkpoint.store import has_checkpoint
from sailvit.core.errors import DataError, ModelError, TakenOverError
from sailvit.core.recipe import Recipe
from sailvit.data.lengths import counts, measuring
from sailvit.data.loading import reader
from sailvit.distributed.processes import rank, world
from sailvit.models.loading import build, folders
from sailvit.training import trainer as trainer_module
from sailvit.training.callbacks import claim as claim_module
from sailvit.training.callbacks.proof import ProofCallback
from sailvit.training.objectives.base import NextToken
from sailvit.training.output.loggers import LOGGERS
from sailvit.training.stages import start_from
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord
from tiny_parts import Parts
from tiny_runs import lines, recipe, stage, train, write_data
from two_processes import in_two

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def made(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """One stage of six steps, each of which is saved in the background."""
    monkeypatch.setattr(trainer_module, "device_peak", lambda *_: 1e12)
    monkeypatch.setenv("SAILVIT_CACHE", str(tmp_path / "cache"))
    stages = [stage(length={"samples": 24}, start_from={"connector": "recipe"})]
    sources = write_data(tmp_path / "data")
    return recipe(parts, sources, stages, checkpoint={"every": 1})


@dataclass(frozen=True)
class Fault:
    """A function that fails on one of two processes."""

    owner: Any
    """Where it is found."""
    name: str
    """Its name there."""
    rank: int
    """The process on which it fails."""
    error: Exception
    """What it raises."""
    said: str
    """What both processes say then."""
    saved: bool = False
    """Whether the run has steps to go on from then."""

    def plant(self, patch: pytest.MonkeyPatch, calls: int = 0) -> None:
        """Have it fail after so many calls that work."""
        as_item = isinstance(self.owner, dict)
        sound = self.owner[self.name] if as_item else getattr(self.owner, self.name)
        met = [0]

        def either(*given: Any, **named: Any) -> Any:
            met[0] += 1
            if world() == 2 and rank() == self.rank and met[0] > calls:
                raise self.error
            return sound(*given, **named)

        (patch.setitem if as_item else patch.setattr)(self.owner, self.name, either)


BEFORE_THE_FIRST_STEP = {
    "a source": Fault(trainer_module, "open_sources", 1, DataError("no folder"), "no folder"),
    "weights": Fault(build, "load_tower", 1, ModelError("no weights"), "no weights"),
    "a full cache": Fault(counts.os, "posix_fallocate", 0, FULL, "token counts of data sets"),
    "a cache that cannot be cleared": Fault(Path, "touch", 0, FULL, "could not be written"),
    "bad records": Fault(trainer_module, "judge", 1, DataError("bad"), "bad"),
    "a full disk, manifest": Fault(
        trainer_module, "start_manifest", 0, FULL, "manifest.json could not be written"
    ),
    "a full disk, loggers": Fault(LOGGERS, "tensorboard", 0, FULL, "monitoring.loggers asks for"),
    "a part to start from": Fault(start_from, "_weights", 1, ModelError("no part"), "no part"),
}


@pytest.mark.parametrize("kind", BEFORE_THE_FIRST_STEP)
def test_what_one_finds_before_the_first_step_both_say(
    kind: str, made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fault = BEFORE_THE_FIRST_STEP[kind]
    fault.plant(monkeypatch)
    if fault.owner is Path:
        monkeypatch.setattr(measuring.Path, "exists", always_stale(Path.exists))
    told = in_two(tmp_path, lambda _: train(made, tmp_path / "run"))
    assert [fault.said in each for each in told] == [True, True], told
    assert not has_checkpoint(tmp_path / "run/state")


def always_stale(sound: Callable[[Path], bool]) -> Callable[[Path], bool]:
    return lambda path: path.suffix == ".stale" or sound(path)


TRAINING = {
    "a folder taken over": (
        Fault(claim_module.RunLock, "check", 0, TakenOverError("taken over"), "taken over"),
        3,
    ),
    "a record": (Fault(reader.BatchReader, "__getitem__", 1, DataError("wrong"), "wrong"), 3),
    "a proof": (Fault(ProofCallback, "_verdict", 1, DataError("no"), "no"), 0),
    "a full disk, lines": (Fault(store, "write_json", 0, FULL, "state could not be written"), 6),
    "a full disk, state": (
        Fault(store.StreamingWriter, "write_data", 1, FULL, "state could not be written"),
        3,
    ),
    "a full disk, publishing": (Fault(store, "summary", 0, FULL, "state could not be"), 9),
}


@pytest.mark.parametrize("kind", TRAINING)
def test_what_stops_one_in_training_stops_both_with_its_reason(
    kind: str, made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fault, calls = TRAINING[kind]
    fault.plant(monkeypatch, calls)
    told = in_two(tmp_path, lambda _: train(made, tmp_path / "run"))
    assert [fault.said in each for each in told] == [True, True], told


def test_a_loss_that_is_no_number_on_one_process_is_skipped_by_both(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sound, met = NextToken.forward, [0]

    def broken(objective: NextToken, *given: Any) -> Any:
        met[0] += 1
        return sound(objective, *given) * (math.nan if rank() == 1 and met[0] == 3 else 1.0)

    monkeypatch.setattr(NextToken, "forward", broken)
    assert in_two(tmp_path, lambda _: train(made, tmp_path / "run")) == ["done", "done"]
    skipped = [line["skipped"] for line in lines(tmp_path / "run/metrics.jsonl")]
    assert skipped == [number == 2 for number in range(len(skipped))]
    assert len(skipped) > 3


def test_losses_that_stay_no_numbers_on_one_process_stop_both(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sound = NextToken.forward
    monkeypatch.setattr(
        NextToken, "forward", lambda *given: sound(*given) * (math.nan if rank() else 1.0)
    )
    changes = {"proof_steps": 9, "recovery": made.recovery.model_copy(update={"streak": 2})}
    stopping = made.model_copy(update=changes)
    told = in_two(tmp_path, lambda _: train(stopping, tmp_path / "run"))
    assert ["2 steps in a row had a loss" in each for each in told] == [True, True], told


def test_counts_that_one_machine_finds_stale_are_measured_again_by_both(
    made: Recipe, tmp_path: Path
):
    """Each process is the first of its machine, with a cache of its own."""

    def as_machine(index: int) -> None:
        os.environ.update(LOCAL_RANK="0", SAILVIT_CACHE=str(tmp_path / f"cache-{index}"))
        train(made, tmp_path / os.environ["RUN"])

    os.environ["RUN"] = "first"
    assert in_two(tmp_path, as_machine) == ["done", "done"]
    files = sorted(tmp_path.glob("cache-*/costs/*.npy"))
    assert len(files) == 2
    measured = [file.stat().st_mtime_ns for file in files]
    measuring.stale_mark(files[1]).touch()
    os.environ["RUN"] = "second"
    assert in_two(tmp_path, as_machine) == ["done", "done"]
    assert all(f.stat().st_mtime_ns > old for f, old in zip(files, measured, strict=True))
    assert not list(tmp_path.glob("cache-*/costs/*.stale"))


class Leave(Callback):
    """Ends one process in its third step with an error that only this one has, after two saves."""

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        if rank() == 1 and record.step == 3:
            raise DataError("only here")


def test_a_process_that_is_gone_is_said_and_not_waited_for(made: Recipe, tmp_path: Path):
    told = in_two(tmp_path, lambda _: train(made, tmp_path / "run", Leave()))
    assert told[1] == "DataError: only here"
    assert "another process of this run is gone, as rank 0 found in step" in told[0]
    assert has_checkpoint(tmp_path / "run/state")


def test_a_source_for_monitoring_is_measured_by_the_process_that_chooses(
    made: Recipe, tmp_path: Path
):
    watched = made.monitoring.model_copy(update={"every": 2, "source": "captions", "share": None})
    watching = made.model_copy(update={"monitoring": watched})
    assert in_two(tmp_path, lambda _: train(watching, tmp_path / "run")) == ["done", "done"]
    assert len(lines(tmp_path / "run/monitoring.jsonl")) > 1


def test_an_export_that_fails_on_the_writing_process_is_said_by_both(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    Fault(folders, "_replace", 0, FULL, "").plant(monkeypatch)
    told = in_two(tmp_path, lambda _: train(made, tmp_path / "run"))
    assert ["not everything could be exported" in each for each in told] == [True, True], told
