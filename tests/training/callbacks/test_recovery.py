"""Steps that are not finite: skipped, counted, gone back from, and named when nothing helps."""

from __future__ import annotations

import math
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch

from sailvit.core.batch import Batch
from sailvit.core.errors import RunError
from sailvit.core.recipe import CheckpointConfig, Recipe, RecoveryConfig
from sailvit.training import trainer as module
from sailvit.training.callbacks.recovery import robust_score
from sailvit.training.objectives.base import NextToken
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord
from tiny_parts import Parts
from tiny_runs import lines, recipe, stage, train, write_data


class Poison:
    """Makes the loss of chosen calls something else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, calls: dict[int, float]) -> None:
        self.calls = 0
        sound = NextToken.forward

        def forward(
            objective: NextToken, model: Any, activations: Any, batch: Batch
        ) -> torch.Tensor:
            self.calls += 1
            return sound(objective, model, activations, batch) * calls.get(self.calls, 1.0)

        monkeypatch.setattr(NextToken, "forward", forward)


class Weights(Callback):
    """The connector's weights after every step."""

    def __init__(self) -> None:
        self.after: dict[int, torch.Tensor] = {}

    def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
        self.after[record.step] = stage_run.model.connector.up.weight.detach().clone()


@pytest.fixture
def made(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """One micro-batch a step, 12 steps or so."""
    monkeypatch.setattr(module, "device_peak", lambda *_: 1e12)
    one = stage(train={"connector": 1.0}, global_batch=1, length={"samples": 60})
    return recipe(parts, write_data(tmp_path / "data"), [one])


def events(folder: Path) -> list[dict[str, Any]]:
    return lines(folder / "events.jsonl")


def test_a_step_that_is_not_finite_changes_nothing(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    Poison(monkeypatch, {4: math.nan, 6: math.inf})
    seen = Weights()
    train(made, tmp_path / "run", seen)
    steps = lines(tmp_path / "run/metrics.jsonl")
    assert [line["step"] for line in steps if line["skipped"]] == [4, 6]
    assert torch.equal(seen.after[3], seen.after[4])
    assert torch.equal(seen.after[5], seen.after[6])
    assert not torch.equal(seen.after[4], seen.after[5])
    assert all(torch.isfinite(weight).all() for weight in seen.after.values())
    assert steps[-1]["samples"] == 60


def test_a_streak_leads_back_to_the_last_checkpoint_and_on_past_the_data(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    Poison(monkeypatch, {6: math.nan, 7: math.nan, 8: math.nan})
    changes = {"checkpoint": CheckpointConfig(every=2), "recovery": RecoveryConfig(streak=3)}
    seen = Weights()
    train(made.model_copy(update=changes), tmp_path / "run", seen)
    (event,) = events(tmp_path / "run")
    assert (event["event"], event["step"], event["to_step"]) == ("rollback", 8, 4)
    steps = lines(tmp_path / "run/metrics.jsonl")
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    assert steps[-1]["samples"] == 60
    assert len(event["samples"]) == steps[7]["samples"] - steps[4]["samples"]
    assert torch.equal(seen.after[8], seen.after[5])
    # Step 9 starts from the state after step 4, moments included: it repeats what step 5 would do to other data.
    assert not torch.equal(seen.after[9], seen.after[8])
    assert (seen.after[9] - seen.after[4]).abs().max() < 3 * 1e-3


def test_without_a_checkpoint_the_run_stops_and_names_the_samples(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    Poison(monkeypatch, dict.fromkeys(range(3, 99), math.nan))
    with pytest.raises(
        RunError, match=r"5 steps in a row .* no checkpoint of this stage .* samples: chat/\d"
    ):
        train(made, tmp_path / "run")


def test_rollbacks_come_to_an_end(made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Poison(monkeypatch, dict.fromkeys(range(4, 99), math.nan))
    changes = {
        "checkpoint": CheckpointConfig(every=1),
        "recovery": RecoveryConfig(streak=2, rollbacks=2),
    }
    with pytest.raises(RunError, match=r"2 steps in a row .* after 2 rollbacks"):
        train(made.model_copy(update=changes), tmp_path / "run")
    # The state after the first rollback is sound, so it is saved like any other.
    *back, stop = events(tmp_path / "run")
    assert [event["to_step"] for event in back] == [3, 5]
    assert (stop["event"], stop["skipped"]) == ("not finite", 2)
    assert stop["samples"]


def test_a_spike_is_noted_with_its_samples(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    Poison(monkeypatch, {25: 50.0})
    long = made.stages[0].model_copy(
        update={"length": made.stages[0].length.model_copy(update={"samples": 150})}
    )
    train(made.model_copy(update={"stages": [long]}), tmp_path / "run")
    spikes = [event for event in events(tmp_path / "run") if event["event"] == "spike"]
    assert [event["step"] for event in spikes] == [25]
    assert spikes[0]["score"] > 8
    assert spikes[0]["samples"]


def test_robust_scores():
    steady = deque([1.0 + 0.01 * (n % 5) for n in range(50)])
    assert robust_score(1.02, steady) == 0
    assert robust_score(1.5, steady) > 8
    assert robust_score(0.5, steady) < 0
    assert robust_score(9.0, deque([1.0] * 19)) == 0
    assert robust_score(1.0 + 1e-6, deque([1.0] * 30)) < 8
