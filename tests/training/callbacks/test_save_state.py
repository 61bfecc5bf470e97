"""When states are saved: by the clock of the first process, by steps, and exactly enough to go on from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from sailvit.checkpoint.store import has_checkpoint
from sailvit.core.recipe import CheckpointConfig, Recipe
from sailvit.core.run import read_json
from sailvit.training import trainer as module
from sailvit.training.callbacks import save_state as saving
from sailvit.training.callbacks.save_state import Timer
from sailvit.training.objectives.base import NextToken
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord
from tiny_parts import Parts
from tiny_runs import lines, recipe, stage, train, weights, write_data

CPU = torch.device("cpu")


class Clock:
    def __init__(self) -> None:
        self.minutes = 100.0

    def __call__(self) -> float:
        return 60 * self.minutes


@pytest.mark.parametrize(
    ("settings", "first", "next_one"),
    [
        ({}, 5, 20),
        ({"minutes": 30, "first_minutes": 1}, 1, 30),
        ({"minutes": 2, "first_minutes": 9}, 2, 2),
    ],
    ids=str,
)
def test_the_first_save_comes_soon_and_the_others_at_the_interval(
    settings: dict[str, float], first: float, next_one: float
):
    clock = Clock()
    timer = Timer(CheckpointConfig(**settings), clock)
    for wait in (first, next_one, next_one):
        clock.minutes += wait - 0.01
        assert not timer.due(CPU)
        clock.minutes += 0.02
        # Due until the save is made: a step that is not finite puts it off.
        assert timer.due(CPU)
        assert timer.due(CPU)
        timer.restart()


def test_without_minutes_no_time_is_right():
    clock = Clock()
    timer = Timer(CheckpointConfig(minutes=None), clock)
    clock.minutes += 1e6
    assert not timer.due(CPU)


@pytest.mark.parametrize("due", [False, True])
def test_the_first_process_decides_for_all(monkeypatch: pytest.MonkeyPatch, due: bool):
    given: list[list[int]] = []

    def summed(counts: list[int], device: torch.device) -> list[int]:
        given.append(counts)
        return [int(due)]

    monkeypatch.setattr(saving, "rank", lambda: 1)
    monkeypatch.setattr(saving, "sum_counts", summed)
    clock = Clock()
    timer = Timer(CheckpointConfig(), clock)
    clock.minutes += 60
    assert timer.due(CPU) is due
    assert given == [[0]]


class Crash(Exception):  # noqa: N818 - as a power cut is no error of the program
    pass


class CrashAfter(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
        if record.step == self.step:
            raise Crash


@pytest.fixture
def made(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(module, "device_peak", lambda *_: 1e12)
    return recipe(parts, write_data(tmp_path / "data"), [stage(length={"samples": 30})])


def losses(folder: Path) -> list[Any]:
    return [(line["step"], line["loss"]) for line in lines(folder / "metrics.jsonl")]


def test_a_run_that_is_killed_goes_on_from_the_last_save_by_time(made: Recipe, tmp_path: Path):
    expected = weights(train(made, tmp_path / "whole"))
    often = made.model_copy(
        update={"checkpoint": CheckpointConfig(minutes=1e-9, first_minutes=1e-9)}
    )
    with pytest.raises(Crash):
        train(often, tmp_path / "run", CrashAfter(4))
    assert sorted(path.name for path in (tmp_path / "run/state").iterdir()) == [
        "00-00000002",
        "00-00000003",
    ]
    found = weights(train(often, tmp_path / "run", resume=True))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_steps_that_were_skipped_do_not_count_in_a_states_score(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sound, calls = NextToken.forward, []

    def forward(*given: Any) -> torch.Tensor:
        calls.append(len(calls) + 1)
        return sound(*given) * (math.nan if calls[-1] == 3 else 1.0)

    monkeypatch.setattr(NextToken, "forward", forward)
    often = made.model_copy(update={"checkpoint": CheckpointConfig(every=3, best=True)})
    with pytest.raises(Crash):
        train(often, tmp_path / "run", CrashAfter(4))
    steps = lines(tmp_path / "run/metrics.jsonl")
    assert [step["skipped"] for step in steps] == [False, True, False, False]
    score = read_json(tmp_path / "run/state/00-00000003/values.json")["score"]
    assert score == pytest.approx((losses_of(steps[0]) + losses_of(steps[2])) / 2)


def losses_of(step: dict[str, Any]) -> float:
    return float(sum(step["loss"].values()))


def test_by_default_a_short_run_saves_nothing_in_between(made: Recipe, tmp_path: Path):
    with pytest.raises(Crash):
        train(made, tmp_path / "run", CrashAfter(4))
    assert not has_checkpoint(tmp_path / "run/state")
