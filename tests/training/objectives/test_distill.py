"""The distill objective: features stay near those of the tower that the recipe names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sailvit.data.processing.collate import collate
from sailvit.models.loading.build import ModelBundle
from sailvit.preflight.plan import plan
from sailvit.training.objectives.base import Distill
from tiny_parts import Parts, mixed_records, samples
from tiny_runs import lines, recipe, stage, train, write_data


@pytest.fixture
def bundle(parts: Parts) -> ModelBundle:
    return parts.build()


def test_equal_towers_are_no_distance_apart_and_zeros_one(bundle: ModelBundle):
    model, objective = bundle.mllm.eval(), Distill()
    batch = collate([samples(bundle, mixed_records())])
    objective.prepare(model, [batch])
    assert objective.units(batch) == len(batch.tiles) == 4
    assert not list(objective.parameters())
    assert objective(model, model(batch, logits=False), batch).item() == 0.0
    base = model.features(batch.tiles)
    with torch.no_grad():
        for parameter in model.tower.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    objective.prepare(model, [batch])
    activations = model(batch, logits=False)
    found = objective(model, activations, batch)
    by_tile = [
        ((each - other) ** 2).sum() / (other**2).sum()
        for each, other in zip(model.features(batch.tiles), base, strict=True)
    ]
    torch.testing.assert_close(found, sum(by_tile))
    found.backward()
    assert all(p.grad is None for p in model.connector.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.tower.parameters())


def test_a_batch_without_images_adds_nothing(bundle: ModelBundle):
    objective = Distill()
    batch = collate([samples(bundle, mixed_records()[:1])])
    objective.prepare(bundle.mllm, [batch])
    assert objective(bundle.mllm, bundle.mllm(batch, logits=False), batch).item() == 0.0


def test_a_heavier_weight_keeps_the_tower_nearer_also_in_later_stages(parts: Parts, tmp_path: Path):
    """The base is the recipe's tower, not the one that the second stage begins with."""
    sources, ends = write_data(tmp_path), []
    for weight in (1e-6, 100.0):
        both = {"next_token": 1.0, "distill": weight}
        stages = [stage(name, objectives=both, length={"samples": 40}) for name in ("a", "b")]
        train(recipe(parts, sources, stages), tmp_path / str(weight))
        rows = lines(tmp_path / str(weight) / "metrics.jsonl")
        assert rows[0]["loss"]["distill"] == pytest.approx(0, abs=1e-9)
        assert next(row for row in rows if row["stage"] == "b")["loss"]["distill"] > 0
        ends.append(rows[-1]["loss"]["distill"])
    assert ends[1] < 0.5 * ends[0]


def test_plan_refuses_it_for_a_frozen_tower_and_counts_the_base(parts: Parts, tmp_path: Path):
    sources = write_data(tmp_path)
    both = {"next_token": 1.0, "distill": 1.0}
    frozen = [stage(train={"connector": 1.0}, objectives=both)]
    problems = plan(recipe(parts, sources, frozen)).problems
    assert any("the tower does not train; leave it out" in problem for problem in problems)
    memory = [
        plan(recipe(parts, sources, [stage(objectives=each)])).stages[0].memory.weights
        for each in (both, {"next_token": 1.0})
    ]
    tower = sum(p.numel() for p in parts.build().mllm.part("tower").parameters())
    assert memory[0] - memory[1] == pytest.approx(4 * tower)
