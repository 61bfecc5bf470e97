"""What trains, in which group, at which rate."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sailvit.core.batch import Step
from sailvit.core.errors import RecipeError
from sailvit.core.recipe import TrainConfig
from sailvit.data.processing.collate import collate
from sailvit.models.loading.build import build
from sailvit.training.callbacks.state import trained_names
from sailvit.training.optim.optimizer import (
    load_moments,
    make_optimizer,
    named_moments,
    planned_names,
    set_rate,
)
from sailvit.training.stages.loop import train_step
from tiny_parts import TOWERS, Parts, mixed_records, samples, save_tower
from tiny_runs import OPTIM, stage, stage_run


def groups(optimizer: torch.optim.AdamW) -> list[tuple[str, float, float]]:
    return [
        (group["part"], group["share"], group["weight_decay"]) for group in optimizer.param_groups
    ]


def test_one_group_per_part_and_decay(parts: Parts):
    both = {"next_token": 1.0, "contrastive": 1.0}
    ready = stage_run(parts.build(), stage(objectives=both, optim=OPTIM | {"weight_decay": 0.1}))
    assert groups(ready.optimizer) == [
        ("tower", 0.5, 0.1),
        ("tower", 0.5, 0.0),
        ("connector", 1.0, 0.1),
        ("connector", 1.0, 0.0),
        ("language", 0.25, 0.1),
        ("language", 0.25, 0.0),
        ("objectives", 1.0, 0.0),
    ]
    for group in ready.optimizer.param_groups:
        assert {p.ndim >= 2 for p in group["params"]} == {group["weight_decay"] > 0}
    held = [id(p) for group in ready.optimizer.param_groups for p in group["params"]]
    assert len(held) == len(set(held))
    planned = sum(
        len(planned_names(ready.model, part, ready.stage.train[part]))
        for part in ("tower", "connector", "language")
    )
    assert len(held) == planned + 2


def test_idle_weights_are_never_planned(parts: Parts):
    model = parts.build("dinov2").mllm
    names = planned_names(model, "tower", TrainConfig())
    assert "embeddings.mask_token" not in names
    assert len(names) == len(list(model.tower.model.parameters())) - 1


def test_a_frozen_part_has_no_graph_and_no_state(parts: Parts):
    bundle = parts.build()
    ready = stage_run(bundle, stage(train={"connector": 1.0}))
    batch = collate([samples(bundle, mixed_records())])
    assert not bundle.mllm.tower(batch.tiles).requires_grad
    train_step(ready, Step((batch,), {}), 0.0, 0.0)
    names = trained_names(ready)
    assert {names[p].split("/")[0] for p in ready.optimizer.state} == {"connector"}
    assert len(ready.optimizer.state) == 6
    assert all(p.grad is None for p in bundle.mllm.parameters())
    language = [p for p in bundle.mllm.language.parameters() if p.requires_grad]
    assert not language


def test_a_frozen_part_drops_nothing_out(parts: Parts, tmp_path: Path):
    """It is not learning, so noise in what it says would only be noise."""
    config = TOWERS["vit"].__class__(**{**TOWERS["vit"].to_dict(), "hidden_dropout_prob": 0.5})
    save_tower(config, tmp_path / "tower")
    bundle = build(parts.config().model_copy(update={"tower": str(tmp_path / "tower")}), 0)
    tiles = collate([samples(bundle, mixed_records())]).tiles
    stage_run(bundle, stage(train={"connector": 1.0}))
    assert torch.equal(bundle.mllm.tower(tiles), bundle.mllm.tower(tiles))
    stage_run(bundle, stage(train={"tower": 1.0}))
    assert not torch.equal(bundle.mllm.tower(tiles), bundle.mllm.tower(tiles))


def test_a_tower_that_stays_in_evaluation_mode_trains_in_it(parts: Parts):
    bundle = parts.build()
    bundle.mllm.tower.still = True
    stage_run(bundle, stage(train={"connector": 1.0, "tower": 1.0}))
    assert bundle.mllm.tower.training
    assert not any(module.training for module in bundle.mllm.tower.model.modules())
    assert all(weight.requires_grad for weight in bundle.mllm.tower.model.encoder.parameters())


def test_a_share_of_zero_freezes(parts: Parts):
    ready = stage_run(parts.build(), stage(train={"connector": 1.0, "tower": 0.0}))
    assert {part for part, _, _ in groups(ready.optimizer)} == {"connector"}


def test_nothing_to_train_is_refused(parts: Parts):
    with pytest.raises(
        RecipeError, match="stage only trains nothing: give at least one part a share above 0"
    ):
        stage_run(parts.build(), stage(train={"connector": 0.0}))


@pytest.mark.parametrize(
    ("part", "first", "left_out"),
    [
        ("tower", "encoder.layers.1.", "encoder.layers.0."),
        ("language", "model.layers.1.", "model.layers.0."),
    ],
)
def test_last_blocks_train_with_what_follows_them(
    parts: Parts, part: str, first: str, left_out: str
):
    model = parts.build().mllm
    names = planned_names(model, part, TrainConfig(last_blocks=1))
    block = {name for name, _ in model.part(part).named_parameters() if name.startswith(first)}
    assert block == {name for name in names if name.startswith(first)}
    assert not [name for name in names if name.startswith(left_out) or "embed" in name]
    follows = {"tower": "post_layernorm.weight", "language": "lm_head.weight"}[part]
    assert follows in names
    assert {n.split(".")[0] for n in names}.isdisjoint({"head"})
    everything = planned_names(model, part, TrainConfig(last_blocks=2))
    assert [name for name in everything if name.startswith(left_out)]


def test_last_blocks_are_counted_from_the_layer_that_features_come_from(parts: Parts):
    model = parts.build(feature_layer=-2).mllm
    names = planned_names(model, "tower", TrainConfig(last_blocks=1))
    assert {".".join(name.split(".")[:3]) for name in names} == {"encoder.layers.0"}
    with pytest.raises(
        RecipeError, match="has 2 blocks, of which the last 1 lie after feature_layer"
    ):
        planned_names(model, "tower", TrainConfig(last_blocks=2))


def test_a_listed_part_that_cannot_train_is_refused(parts: Parts):
    model = parts.build().mllm
    model.tower.idle = frozenset(name for name, _ in model.tower.model.named_parameters())
    assert planned_names(model, "tower", TrainConfig(lr=0.0)) == []
    with pytest.raises(
        RecipeError, match="lists the tower, but no weight of it bears on the features"
    ):
        planned_names(model, "tower", TrainConfig())


@pytest.mark.parametrize(
    ("part", "blocks", "message"),
    [
        ("tower", 3, "last_blocks is 3, but .* has 2 blocks"),
        ("connector", 1, "Connector has no list of blocks"),
    ],
)
def test_last_blocks_that_are_not_there(parts: Parts, part: str, blocks: int, message: str):
    with pytest.raises(RecipeError, match=message):
        planned_names(parts.build().mllm, part, TrainConfig(last_blocks=blocks))


def test_rates_by_part_and_never_zero(parts: Parts):
    bundle = parts.build()
    ready = stage_run(
        bundle, stage(optim={"lr": 0.01}, length={"samples": 8}, schedule={"warmup": 0.5})
    )
    batch = collate([samples(bundle, mixed_records())])
    first, last = (train_step(ready, Step((batch,), {}), 0.0, 0.0).lr for _ in range(2))
    assert first == pytest.approx({"tower": 0.0025, "connector": 0.005, "language": 0.00125})
    # Halfway through the second half of the stage: (1 + cos(90 degrees)) / 2 of the peak.
    assert last == pytest.approx(first)
    assert set_rate(ready.optimizer, ready.rate(0.5)) == pytest.approx(
        {"tower": 0.005, "connector": 0.01, "language": 0.0025}
    )
    for group in ready.optimizer.param_groups:
        assert group["lr"] == pytest.approx(0.01 * group["share"])


def test_moments_go_on_where_they_were(parts: Parts):
    """Two steps in one go equal a step, a checkpoint, and a step by a fresh optimizer."""
    bundle = parts.build()
    step = Step((collate([samples(bundle, mixed_records())]),), {})
    ready = stage_run(bundle, stage())
    parameters = dict(bundle.mllm.named_parameters())
    train_step(ready, step, 0.0, 0.0)
    moments = {
        name: tensor.clone()
        for name, tensor in named_moments(ready.optimizer, trained_names(ready))
    }
    kept = {name: p.detach().clone() for name, p in parameters.items()}
    place = (ready.samples, ready.tokens)
    train_step(ready, step, 0.0, 0.0)
    expected = {name: p.detach().clone() for name, p in parameters.items()}
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(kept[name])
    ready.optimizer = make_optimizer(ready.model, ready.objectives.values(), ready.stage)
    load_moments(ready.optimizer, trained_names(ready), moments)
    ready.samples, ready.tokens = place
    train_step(ready, step, 0.0, 0.0)
    assert all(torch.equal(p, expected[name]) for name, p in parameters.items())


def test_moments_have_names_by_owner(parts: Parts):
    bundle = parts.build()
    ready = stage_run(bundle, stage(objectives={"next_token": 1.0, "contrastive": 1.0}))
    train_step(ready, Step((collate([samples(bundle, mixed_records())]),), {}), 0.0, 0.0)
    names = {name for name, _ in named_moments(ready.optimizer, trained_names(ready))}
    assert {name.split("/")[0] for name in names} == {"step", "exp_avg", "exp_avg_sq"}
    assert {
        "exp_avg/objective.contrastive/bias",
        "exp_avg_sq/tower/encoder.layers.0.mlp.fc1.weight",
    } <= names
