"""The way back: bit for bit, for weights, moments and step counts."""

from __future__ import annotations

import pytest
import torch

from sailvit.core.batch import Batch, Step
from sailvit.data.processing.collate import collate
from sailvit.training.callbacks.state import trained_names
from sailvit.training.optim.optimizer import named_moments
from sailvit.training.optim.snapshot import Snapshot
from sailvit.training.stages.loop import train_step
from sailvit.training.stages.stage_run import StageRun
from tiny_parts import Parts, mixed_records, record, samples
from tiny_runs import stage, stage_run

BOTH = {"next_token": 1.0, "contrastive": 0.3}


@pytest.fixture
def ready(parts: Parts) -> StageRun:
    return stage_run(parts.build(), stage(objectives=BOTH))


@pytest.fixture
def batch(parts: Parts) -> Batch:
    return collate([samples(parts.build(), mixed_records())])


def everything(made: StageRun) -> dict[str, torch.Tensor]:
    """Weights, the objectives' own parameters, moments and step counts."""
    modules = {"model": made.model, **made.objectives}
    tensors = {
        f"{owner}/{n}": p for owner, module in modules.items() for n, p in module.named_parameters()
    }
    tensors |= {f"moment/{n}": t for n, t in named_moments(made.optimizer, trained_names(made))}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert not [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)]


@pytest.mark.parametrize("keep", ["cpu", "device"])
def test_going_back_is_exact_and_so_is_what_follows(ready: StageRun, batch: Batch, keep: str):
    step = Step((batch,), {})
    train_step(ready, step, 0.0, 0.0)
    before, place = everything(ready), (ready.samples, ready.tokens, ready.step)
    taken = Snapshot.take(ready.optimizer, keep)  # type: ignore[arg-type]
    train_step(ready, step, 0.0, 0.0)
    after = everything(ready)
    for _ in range(2):
        train_step(ready, step, 0.0, 0.0)
    assert float(everything(ready)["moment/step/connector/up.weight"]) == 4
    taken.restore(ready.optimizer)
    assert_same(everything(ready), before)
    ready.samples, ready.tokens, ready.step = place
    train_step(ready, step, 0.0, 0.0)
    assert_same(everything(ready), after)


def test_a_snapshot_is_a_copy(ready: StageRun, batch: Batch):
    train_step(ready, Step((batch,), {}), 0.0, 0.0)
    held = {
        t.data_ptr()
        for _, t in Snapshot.take(ready.optimizer, "device").tensors(trained_names(ready))
    }
    assert held.isdisjoint(tensor.data_ptr() for tensor in ready.model.parameters())
    assert held.isdisjoint(
        t.data_ptr() for state in ready.optimizer.state.values() for t in state.values()
    )


def test_moments_that_came_during_the_trial_go_again(ready: StageRun, batch: Batch, parts: Parts):
    """A tower that saw its first image in the trial had no moments before, and its count starts at 0 again."""
    text = collate([samples(parts.build(), [record("text")])])
    train_step(ready, Step((text,), {}), 0.0, 0.0)
    before, taken = everything(ready), Snapshot.take(ready.optimizer, "cpu")
    train_step(ready, Step((batch,), {}), 0.0, 0.0)
    assert everything(ready).keys() > before.keys()
    taken.restore(ready.optimizer)
    assert_same(everything(ready), before)


def test_only_what_trains_is_kept(parts: Parts, batch: Batch):
    made = stage_run(parts.build(), stage(train={"connector": 1.0}))
    train_step(made, Step((batch,), {}), 0.0, 0.0)
    names = [name for name, _ in Snapshot.take(made.optimizer, "cpu").tensors(trained_names(made))]
    assert {name.split("/")[1] for name in names} == {"connector"}
    assert len(names) == 6 * 4


def test_it_travels_by_name(ready: StageRun, batch: Batch):
    train_step(ready, Step((batch,), {}), 0.0, 0.0)
    before, names = everything(ready), trained_names(ready)
    saved = {
        name: tensor.clone()
        for name, tensor in Snapshot.take(ready.optimizer, "cpu").tensors(names)
    }
    assert {"weight/objective.contrastive/bias", "exp_avg/connector/up.weight"} < saved.keys()
    for _ in range(2):
        train_step(ready, Step((batch,), {}), 0.0, 0.0)
    Snapshot.load(saved, names, "cpu").restore(ready.optimizer)
    assert_same(everything(ready), before)
