"""A step with an objective that spans it: how often the tower runs, with nothing else changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ViTConfig

from sailvit.core.batch import Batch
from sailvit.core.recipe import Recipe
from sailvit.core.records import Sample
from sailvit.data.processing.collate import collate
from sailvit.models.loading.build import build
from sailvit.training.objectives.base import Contrastive
from sailvit.training.stages.loop import _global_counts, accumulate
from sailvit.training.stages.prepare_step import prepare_step
from sailvit.training.stages.stage_run import StageRun
from tiny_parts import TOWERS, Parts, captions, mixed_records, samples, save_tower
from tiny_runs import stage, stage_run

BOTH = {"next_token": 1.0, "contrastive": 0.3}
TEXTS = ["a red circle", "blue square", "a red circle", "large"]
FEATURES = 16 * 32 * 4
"""Bytes of a tile's features: 16 patches, 32 wide, in fp32."""


@pytest.fixture
def micro(parts: Parts) -> tuple[Batch, ...]:
    """Eight micro-batches: without an image, with one, with two, and five captions."""
    made: list[Sample] = samples(parts.build(), [*mixed_records(), *captions(TEXTS)])
    return tuple(collate([[sample]]) for sample in made)


def ready_run(parts: Parts, *, room: float = 1.0, **changes: Any) -> StageRun:
    """A stage that takes single steps, with room for so many GiB of features."""
    settings = stage(**{"objectives": BOTH, "train": {"connector": 1.0}, **changes})
    ready = stage_run(parts.build(), settings, parallel={"kept_features": room})
    for objective in ready.objectives.values():
        if isinstance(objective, Contrastive):
            objective.bias.data.fill_(-1.0)
    return ready


def passed(ready: StageRun, micro: tuple[Batch, ...]) -> tuple[int, dict[str, Any]]:
    """Tiles that went through the tower in a step, and losses and gradients of it."""
    seen: list[int] = []
    handle = ready.model.tower.register_forward_pre_hook(
        lambda _, given: seen.append(len(given[0]))
    )
    result: dict[str, Any] = dict(accumulate(ready, micro, _global_counts(ready, micro)))
    handle.remove()
    for owner, module in {"model": ready.model, **ready.objectives}.items():
        result |= {
            f"{owner}.{n}": p.grad for n, p in module.named_parameters() if p.grad is not None
        }
    return sum(seen), result


def assert_same_bits(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    assert len(found) > 5
    for name, value in expected.items():
        assert torch.equal(torch.as_tensor(found[name]), torch.as_tensor(value)), name


@pytest.mark.parametrize("objectives", [BOTH, {"contrastive": 1.0}])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_frozen_tower_runs_once_to_the_same_bits(
    parts: Parts, micro: tuple[Batch, ...], precision: str, objectives: dict[str, float]
):
    tiles = sum(len(batch.tiles) for batch in micro)
    results = []
    for room in (0.0, 1.0):
        ready = ready_run(parts, room=room, objectives=objectives)
        ready.recipe = Recipe.model_validate({**ready.recipe.model_dump(), "precision": precision})
        results.append(passed(ready, micro))
    (twice, expected), (once, found) = results
    assert (twice, once) == (2 * tiles, tiles)
    assert_same_bits(found, expected)


@pytest.mark.parametrize(("room", "kept"), [(0, 0), (1, 1), (3, 2), (4, 3), (7, 6), (9, 8)])
def test_features_are_kept_from_the_first_micro_batch_on_as_far_as_there_is_room(
    parts: Parts, micro: tuple[Batch, ...], room: int, kept: int
):
    """A micro-batch without a tile counts as one: where processes wait in the tower, it runs one."""
    ready = ready_run(parts, room=room * FEATURES / 2**30)
    tiles = [len(batch.tiles) for batch in micro]
    assert tiles == [0, 1, 2, 1, 1, 1, 1, 1]
    assert passed(ready, micro)[0] == sum(tiles) + sum(tiles[kept:])


def test_a_tower_that_trains_runs_twice_or_once_by_choice(parts: Parts, micro: tuple[Batch, ...]):
    train = {"connector": 1.0, "tower": 1.0}
    tiles = sum(len(batch.tiles) for batch in micro)
    assert passed(ready_run(parts, train=train), micro)[0] == 2 * tiles
    assert passed(ready_run(parts, train=train, negatives="micro_batch"), micro)[0] == tiles


def test_without_an_objective_that_spans_the_step_nothing_is_kept(
    parts: Parts, micro: tuple[Batch, ...]
):
    tiles = sum(len(batch.tiles) for batch in micro)
    plain = {"next_token": 1.0}
    assert passed(ready_run(parts, objectives=plain), micro)[0] == tiles
    assert passed(ready_run(parts), micro[3:4])[0] == 1


def test_negatives_of_a_micro_batch_are_its_own(parts: Parts, micro: tuple[Batch, ...]):
    """The loss of the step is the sum of the losses that each micro-batch has alone."""
    ready = ready_run(parts, objectives={"contrastive": 1.0}, negatives="micro_batch")
    made = samples(ready.bundle, captions([*TEXTS, "small"]))
    pairs = tuple(collate([made[at : at + 2]]) for at in (0, 2))
    objective, expected = ready.objectives["contrastive"], 0.0
    for batch in pairs:
        expected += float(objective(ready.model, ready.model(batch, logits=False), batch).detach())
    found = passed(ready, pairs)[1]["contrastive"]
    spanning = passed(ready_run(parts, objectives={"contrastive": 1.0}), pairs)[1]["contrastive"]
    assert found == pytest.approx(expected / 4, rel=1e-6)
    assert spanning > found * 1.05


def with_dropout(parts: Parts, folder: Path) -> StageRun:
    """A contrastive stage whose tower trains and drops half of its activations."""
    config = ViTConfig(**{**TOWERS["vit"].to_dict(), "hidden_dropout_prob": 0.5})
    save_tower(config, folder / "tower")
    bundle = build(parts.config().model_copy(update={"tower": str(folder / "tower")}), 0)
    train = {"connector": 1.0, "tower": 1.0, "language": 1.0}
    ready = stage_run(bundle, stage(objectives={"contrastive": 1.0}, train=train))
    ready.objectives["contrastive"].bias.data.fill_(-1.0)
    return ready


def test_dropout_is_the_same_in_both_passes(parts: Parts, micro: tuple[Batch, ...], tmp_path: Path):
    """Pairs of the bank are, to the bit, those of the pass that has the graph."""
    ready = with_dropout(parts, tmp_path)
    objective, seen = ready.objectives["contrastive"], []
    pairs = objective.pairs
    objective.pairs = lambda *given: seen.append(pairs(*given)) or seen[-1]
    accumulate(ready, micro, _global_counts(ready, micro))
    assert len(seen) == 2 * len(micro)
    for before, behind in zip(seen[: len(micro)], seen[len(micro) :], strict=True):
        for expected, found in zip(before, behind, strict=True):
            assert torch.equal(found.detach(), expected)
    images = [images for images, _ in seen[: len(micro)] if len(images)]
    assert not torch.equal(images[0], images[1])


def test_the_gradient_with_dropout_is_that_of_the_whole_loss(
    parts: Parts, micro: tuple[Batch, ...], tmp_path: Path
):
    """Of the loss over all pairs at once, with one graph through the same dropout."""
    ready = with_dropout(parts, tmp_path)
    objective = ready.objectives["contrastive"]
    assert isinstance(objective, Contrastive)
    _, found = passed(ready, micro)
    ready.model.zero_grad()
    counts = _global_counts(ready, micro)
    seeded = prepare_step(ready, micro)
    made = []
    for batch in seeded:
        torch.manual_seed(batch.seed)
        made.append(objective.pairs(ready.model, ready.model(batch, logits=False).visual, batch))
    images, texts = (torch.cat(side) for side in zip(*made, strict=True))
    scores = objective.log_scale.exp() * images @ texts.T + objective.bias
    signs = 2 * torch.eye(len(scores)) - 1
    signs[(texts @ texts.T > 1 - 1e-5) & (torch.eye(len(scores)) == 0)] = 0
    loss = -torch.nn.functional.logsigmoid(signs * scores)[signs != 0].sum()
    (loss / counts["contrastive"]).backward()
    assert found["contrastive"] == pytest.approx(
        float(loss.detach()) / counts["contrastive"], rel=1e-5
    )
    for name, parameter in ready.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[f"model.{name}"], parameter.grad, rtol=1e-4, atol=1e-6)
