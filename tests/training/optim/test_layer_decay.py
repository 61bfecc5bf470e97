"""Layer-wise decay: every parameter in one group, at the rate of its layer."""

from __future__ import annotations

from pathlib import Path

import pytest

from sailvit.core.batch import Step
from sailvit.core.errors import ProofError, RecipeError
from sailvit.core.recipe import TrainConfig
from sailvit.data.processing.collate import collate
from sailvit.training.callbacks.proof import ProofCallback
from sailvit.training.optim.optimizer import planned_names, planned_shares, set_rate
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.loop import run_stage, train_step
from sailvit.training.stages.stage_run import StageRun, StepRecord
from tiny_parts import Parts, mixed_records, samples
from tiny_runs import lines, stage, stage_run

PLACES = {
    "aimv2": ("embeddings.", "encoder.layers.", "rms_norm."),
    "siglip": ("embeddings.", "encoder.layers.", "post_layernorm."),
    "clip": ("embeddings.", "encoder.layers.", "post_layernorm."),
}
"""How a family names what comes before its blocks, the blocks, and what comes after them."""


@pytest.mark.parametrize("family", PLACES)
def test_shares_fall_with_the_distance_from_the_features(parts: Parts, family: str):
    model = parts.build(family).mllm
    before, blocks, after = PLACES[family]
    shares = planned_shares(model, "tower", TrainConfig(lr=0.8, layer_decay=0.5))
    assert list(shares) == planned_names(model, "tower", TrainConfig())
    for start, expected in ((f"{blocks}1.", 0.4), (f"{blocks}0.", 0.2), (before, 0.1)):
        found = {share for name, share in shares.items() if name.startswith(start)}
        assert sorted(found) == pytest.approx([expected]), start
    # CLIP's features are taken before its last norm, which is idle therefore.
    assert {share for name, share in shares.items() if name.startswith(after)} <= {0.8}
    assert (family == "clip") == (not any(name.startswith(after) for name in shares))


def test_what_stands_before_the_blocks_is_lowest_wherever_it_is_declared(parts: Parts):
    shares = planned_shares(parts.build("clip").mllm, "tower", TrainConfig(layer_decay=0.5))
    assert {shares[name] for name in shares if name.startswith("pre_layrnorm")} == {0.125}


def test_a_share_does_not_depend_on_how_many_blocks_train(parts: Parts):
    model = parts.build().mllm
    every = planned_shares(model, "tower", TrainConfig(layer_decay=0.7))
    last = planned_shares(model, "tower", TrainConfig(layer_decay=0.7, last_blocks=1))
    assert 0 < len(last) < len(every)
    assert last == {name: every[name] for name in last}


def test_layers_are_counted_from_the_one_that_features_come_from(parts: Parts):
    shares = planned_shares(
        parts.build(feature_layer=-2).mllm, "tower", TrainConfig(layer_decay=0.5)
    )
    assert {share for name, share in shares.items() if name.startswith("encoder.layers.0.")} == {
        0.5
    }
    assert not [name for name in shares if name.startswith("encoder.layers.1.")]


def test_a_part_without_blocks_is_refused(parts: Parts):
    with pytest.raises(
        RecipeError,
        match=r"layer_decay needs a part made of blocks; .*Connector has no list of blocks",
    ):
        stage_run(parts.build(), stage(train={"connector": {"layer_decay": 0.9}}))


@pytest.mark.parametrize("family", PLACES)
def test_one_group_per_part_layer_and_decay(parts: Parts, family: str):
    train = {
        "tower": {"lr": 0.5, "layer_decay": 0.5},
        "connector": 1.0,
        "language": {"lr": 0.5, "layer_decay": 1},
    }
    ready = stage_run(parts.build(family), stage(train=train))
    held = [id(p) for group in ready.optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted({id(p) for p in ready.model.parameters() if p.requires_grad})
    tower = [group for group in ready.optimizer.param_groups if group["part"] == "tower"]
    assert len({(group["share"], group["weight_decay"] > 0) for group in tower}) == len(tower)
    assert {group["share"] for group in tower} - {0.5} == {0.25, 0.125, 0.0625}
    assert {
        group["share"] for group in ready.optimizer.param_groups if group["part"] == "language"
    } == {0.5}
    assert set_rate(ready.optimizer, 1e-3) == pytest.approx(
        {
            "tower": max(group["share"] for group in tower) * 1e-3,
            "connector": 1e-3,
            "language": 5e-4,
        }
    )
    for group in tower:
        assert group["lr"] == pytest.approx(1e-3 * group["share"])


def layered(parts: Parts, folder: Path, steps: int = 3) -> StageRun:
    bundle = parts.build()
    step = Step((collate([samples(bundle, mixed_records())]),), {})
    made = stage_run(
        bundle,
        stage(
            train={"tower": {"layer_decay": 0.5}}, length={"samples": 4 * steps}, optim={"lr": 1e-2}
        ),
        folder,
        proof_steps=1,
    )
    made.loader = [step] * steps  # type: ignore[assignment]
    return made


def test_a_first_step_moves_every_layer_by_its_rate(parts: Parts, tmp_path: Path):
    """Adam's first step is as long as the rate, so the rates show in the weights."""
    made = layered(parts, tmp_path)
    named = dict(made.model.tower.model.named_parameters())
    before = {name: p.detach().clone() for name, p in named.items()}
    record = train_step(made, made.loader[0], 0.0, 0.0)  # type: ignore[index]
    for name, share in planned_shares(made.model, "tower", made.stage.train["tower"]).items():
        if name.endswith(("fc1.bias", "patch_embedding.bias", "post_layernorm.bias")):
            moved = float((named[name].detach() - before[name]).abs().max())
            assert moved == pytest.approx(record.lr["tower"] * share, rel=1e-3), name


def test_the_proof_knows_the_rate_of_every_layer(parts: Parts, tmp_path: Path):
    made = layered(parts, tmp_path / "right")
    made.folder.path.mkdir()
    run_stage(made, [ProofCallback()])
    proofs = lines(made.folder.proofs)
    assert [line["ok"] for line in proofs] == [True, True]
    assert proofs[1]["rows"][0]["lr"] == pytest.approx(1e-2, rel=0.2)

    class Flatten(Callback):
        """Gives all layers the same share, as a setting that does nothing would."""

        def stage_started(self, stage_run: StageRun) -> None:
            for group in stage_run.optimizer.param_groups:
                group["share"] = 1.0

        def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
            assert len(record.lr) == 1

    made = layered(parts, tmp_path / "flat")
    made.folder.path.mkdir()
    with pytest.raises(ProofError, match=r"tower: learning rate 0.0\d* at step 1; planned is 0.00"):
        run_stage(made, [Flatten(), ProofCallback()])
