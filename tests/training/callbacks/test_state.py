"""A callback's own state: saved with the checkpoint, given back on resume, also between stages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from sailvit.core.recipe import CheckpointConfig, Recipe
from sailvit.training.callbacks.proof import ProofCallback
from sailvit.training.callbacks.state import callback_states
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord
from tiny_parts import Parts
from tiny_runs import recipe, stage, train, write_data


class Mean(Callback):
    """Counts steps over all stages and sums the first trained weight, as an average would."""

    def __init__(self, fail_at: tuple[int, int] | None = None) -> None:
        self.steps = 0
        self.held: dict[str, torch.Tensor] = {}
        self._fail_at = fail_at

    def stage_started(self, run: StageRun) -> None:
        if not run.step:
            self.held = {"count": torch.zeros(3)}

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        if (run.index, run.step) == self._fail_at:
            raise KeyboardInterrupt
        name, weight = next(iter(run.model.connector.named_parameters()))
        key = f"sum/connector/{name}"
        before = self.held.get(key, torch.zeros_like(weight))
        self.held = {**self.held, key: before + weight.detach(), "count": self.held["count"] + 1}
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def state_tensors(self, run: StageRun) -> dict[str, torch.Tensor]:
        return self.held

    def load_state_dict(
        self, run: StageRun, state: dict[str, Any], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        self.steps = state["steps"]
        self.held = {name: tensor.clone() for name, tensor in tensors.items()}


@pytest.fixture
def made(parts: Parts, tmp_path: Path) -> Recipe:
    stages = [stage("one", train={"connector": 1.0}), stage("two", train={"connector": 1.0})]
    found = recipe(parts, write_data(tmp_path / "data"), stages)
    return found.model_copy(update={"checkpoint": CheckpointConfig(every=2)})


@pytest.mark.parametrize("place", [(0, 4), (1, 1), (1, 3)], ids=["within", "between", "second"])
def test_state_comes_back_as_if_nothing_had_happened(
    made: Recipe, tmp_path: Path, place: tuple[int, int]
):
    whole, again = Mean(), Mean()
    train(made, tmp_path / "whole", whole)
    with pytest.raises(KeyboardInterrupt):
        train(made, tmp_path / "stopped", Mean(place))
    train(made, tmp_path / "stopped", again, resume=True)
    assert again.steps == whole.steps
    assert again.held.keys() == whole.held.keys()
    assert all(torch.equal(tensor, whole.held[name]) for name, tensor in again.held.items())


def test_callbacks_of_one_class_keep_apart_and_those_without_state_take_no_room():
    first, second = Mean(), Mean()
    first.steps, second.steps = 1, 2
    assert callback_states([first, Callback(), second]) == {
        "Mean": {"steps": 1},
        "Mean-2": {"steps": 2},
    }


def test_the_proof_hands_out_copies():
    proof = ProofCallback()
    given = proof.state_dict()
    given["highest"]["tower"] = 1.0
    assert proof.state_dict()["highest"] == {}
