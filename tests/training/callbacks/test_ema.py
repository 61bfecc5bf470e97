"""The running mean of the tower: exact, resumed exactly, saved beside the tower, without effect."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from sailvit.core.errors import InterruptedRunError
from sailvit.core.recipe import ParallelConfig, Recipe
from sailvit.training import trainer as trainer_module
from sailvit.training.callbacks.ema import FOLDER
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord
from tiny_parts import Parts
from tiny_runs import lines, recipe, stage, train, weights, write_data
from two_processes import in_two

DECAY = 0.5


@pytest.fixture(scope="module")
def made(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    sources = write_data(tmp_path_factory.mktemp("data"))
    stages = [stage("first", ema=DECAY), stage("second", length={"samples": 4})]
    return recipe(parts, sources, stages)


class Towers(Callback):
    """Keeps the tower's weights, from the start of the first stage on."""

    def __init__(self, stop: int | None = None) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []
        self.stop = stop

    def stage_started(self, run: StageRun) -> None:
        if run.index == 0:
            self.seen.append(self.now(run))

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        if run.index == 0:
            self.seen.append(self.now(run))
        run.stop = record.step == self.stop

    @staticmethod
    def now(run: StageRun) -> dict[str, torch.Tensor]:
        return {n: t.detach().clone() for n, t in run.model.part("tower").state_dict().items()}


def saved(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "stages/00-first" / FOLDER / "model.safetensors")


def test_the_mean_is_that_of_the_weights_and_changes_nothing(made: Recipe, tmp_path: Path):
    towers = Towers()
    with_it = train(made, tmp_path / "with", towers)
    assert len(towers.seen) > 3
    mean = {name: tensor.double() for name, tensor in towers.seen[0].items()}
    for step, state in enumerate(towers.seen[1:], 1):
        decay = min(DECAY, (1 + step) / (10 + step))
        mean = {n: decay * mean[n] + (1 - decay) * state[n].double() for n in mean}
    found = saved(tmp_path / "with")
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, mean[name].float(), rtol=1e-5, atol=1e-6)
    last = towers.seen[-1]
    assert any(not torch.equal(tensor, last[name]) for name, tensor in found.items())
    assert not (tmp_path / "with/stages/01-second" / FOLDER).exists()
    stages = [each.model_copy(update={"ema": None}) for each in made.stages]
    without = train(made.model_copy(update={"stages": stages}), tmp_path / "without")
    expected = weights(without)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(with_it).items())


def test_a_stopped_run_goes_on_with_its_mean(made: Recipe, tmp_path: Path):
    train(made, tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        train(made, tmp_path / "stopped", Towers(stop=2))
    train(made, tmp_path / "stopped", resume=True)
    expected = saved(tmp_path / "whole")
    for name, tensor in saved(tmp_path / "stopped").items():
        assert torch.equal(tensor, expected[name]), name


def test_a_mean_of_a_frozen_tower_is_refused():
    with pytest.raises(ValidationError, match="the tower does not train"):
        Recipe.model_validate(
            {
                "name": "x",
                "model": {"tower": "-", "language": "-"},
                "sequence": 8,
                "sources": {"chat": {"format": "llava"}},
                "stages": [stage(train={"connector": 1.0}, ema=0.9)],
            }
        )


@pytest.mark.parametrize("mode", ["replicate", "shard"])
def test_two_processes_keep_the_mean_of_one(
    made: Recipe, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trainer_module, "device_peak", lambda *_: 1e12)
    both = {"next_token": 1.0, "distill": 0.5}
    only = made.stages[0].model_copy(update={"objectives": both})
    alone = made.model_copy(update={"stages": [only]})
    train(alone, tmp_path / "one")
    together = alone.model_copy(update={"parallel": ParallelConfig(mode=mode)})
    told = in_two(_made(tmp_path / "said"), lambda rank: train(together, tmp_path / "two"))
    assert told == ["done", "done"]
    expected = saved(tmp_path / "one")
    for name, tensor in saved(tmp_path / "two").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5, msg=name)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def searching(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A rate far too high, so that raises are taken back, with a mean of the tower."""
    sources = write_data(tmp_path_factory.mktemp("data"))
    search = {"window": 4, "widest": 1, "until": 0.6, "errors": 0.01}
    only = stage(
        "first",
        ema=0.9,
        data=["captions", "chat"],
        objectives={"next_token": 1.0, "contrastive": 0.1},
        optim={"lr": 0.003},
        length={"samples": 64},
        schedule={
            "name": "adalrs",
            "warmup": 10 / 64,
            "search": search,
            "decay": {"share": 0.2},
        },
        global_batch=1,
    )
    return recipe(parts, sources, [only])


def test_steps_of_a_trial_that_was_taken_back_are_not_in_the_mean(
    searching: Recipe, tmp_path: Path
):
    towers = Towers()
    train(searching, tmp_path / "run", towers)
    events = {
        line["step"]: line["event"]
        for line in lines(tmp_path / "run/events.jsonl")
        if line["event"] in ("rate raised", "rate taken back")
    }
    assert "rate taken back" in events.values()
    mean = {name: tensor.double() for name, tensor in towers.seen[0].items()}
    count, back = 0, (0, mean)
    for step, state in enumerate(towers.seen[1:], 1):
        count += 1
        decay = min(0.9, (1 + count) / (10 + count))
        mean = {n: decay * mean[n] + (1 - decay) * state[n].double() for n in mean}
        if events.get(step) == "rate raised":
            back = (count, mean)
        elif events.get(step) == "rate taken back":
            count, mean = back
    for name, tensor in saved(tmp_path / "run").items():
        torch.testing.assert_close(tensor, mean[name].float(), rtol=1e-5, atol=1e-6)
    raised = next(step for step, event in events.items() if event == "rate raised")
    with pytest.raises(InterruptedRunError):
        train(searching, tmp_path / "stopped", Towers(stop=raised + 2))
    train(searching, tmp_path / "stopped", resume=True)
    expected = saved(tmp_path / "run")
    for name, tensor in saved(tmp_path / "stopped").items():
        assert torch.equal(tensor, expected[name]), name
