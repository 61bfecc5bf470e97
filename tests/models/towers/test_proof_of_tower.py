"""The proof of towers: tiles that see each other, tokens that are not the patches, and no trace of the trying."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    BeitConfig,
    Idefics3VisionConfig,
    PixtralVisionConfig,
    PretrainedConfig,
    ViTConfig,
    ViTMAEConfig,
    ViTModel,
    YolosConfig,
)

from sailvit.core.errors import ModelError, RecipeError
from sailvit.core.recipe import ParallelConfig
from sailvit.models.blocks import find_blocks
from sailvit.models.loading.build import build
from sailvit.models.loading.folders import save_part
from sailvit.models.structure.parallel import parallelize
from sailvit.models.towers.proof import prove_tiles
from sailvit.models.towers.tower import Preprocessing, Tower
from tiny_parts import PATCH, SIDE, TOWERS, Parts, save_tower

VISION: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": SIDE,
    "patch_size": PATCH,
    "initializer_range": 0.2,
}


def made(config: PretrainedConfig) -> Tower:
    torch.manual_seed(0)
    model = AutoModel.from_config(config, attn_implementation="sdpa")
    return Tower(model, Preprocessing(SIDE, (0.5,) * 3, (0.25,) * 3)).eval()


def tiles(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)


def assert_apart(tower: Tower) -> None:
    """Four tiles give what each gives alone, and a changed one changes nothing else."""
    batch = tiles(4)
    together = tower(batch)
    torch.testing.assert_close(
        together, torch.cat([tower(tile[None]) for tile in batch]), rtol=1e-5, atol=1e-5
    )
    batch[1] = 255 - batch[1]
    again = tower(batch)
    assert torch.equal(again[[0, 2, 3]], together[[0, 2, 3]])
    assert not torch.allclose(again[1], together[1])


@pytest.mark.parametrize("name", TOWERS)
def test_ordinary_towers_run_in_batches_from_the_token_that_was_counted(name: str):
    tower = made(TOWERS[name])
    before = tower(tiles(2)), tower.prefix
    prove_tiles(tower)
    assert (tower.alone, tower.still, tower.notes, tower.prefix) == (False, False, (), before[1])
    assert torch.equal(tower(tiles(2)), before[0])


@pytest.mark.parametrize("norm", [False, True])
def test_the_proof_leaves_no_trace(norm: bool):
    tower = made(TOWERS["siglip"] if norm else BeitConfig(**VISION, drop_path_rate=0.5)).train()
    if norm:
        tower.model.post_layernorm = Batch(32)
    find_blocks(tower.model)[1][0].eval()
    modes = [module.training for module in tower.modules()]
    state = {name: tensor.clone() for name, tensor in tower.model.state_dict().items()}
    stream = torch.get_rng_state()
    prove_tiles(tower)
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(t, state[n]) for n, t in tower.model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in tower.parameters())
    after = [module.training for module in tower.modules()]
    assert after == ([True] + [False] * (len(modes) - 1) if norm else modes)


def test_pixtral_joins_tiles_in_one_row_and_so_runs_tile_by_tile(parts: Parts, tmp_path):
    save_tower(PixtralVisionConfig(**VISION), tmp_path / "tower")
    config = parts.config().model_copy(update={"tower": str(tmp_path / "tower")})
    tower = build(config, 0).mllm.tower.eval()
    assert tower.alone
    assert "runs tile by tile" in tower.notes[0]
    assert tower(tiles(4)).shape == (4, 16, 32)
    assert_apart(tower)


def test_a_tower_that_mixes_tiles_by_their_mean_runs_tile_by_tile():
    tower = made(TOWERS["siglip"])
    forward = tower.model.forward

    def mixed(pixel_values: torch.Tensor, **given: Any) -> Any:
        states = forward(pixel_values=pixel_values, **given).last_hidden_state
        return SimpleNamespace(last_hidden_state=states - 1e-3 * states.mean(dim=0))

    tower.model.forward = mixed
    prove_tiles(tower)
    assert tower.alone
    assert_apart(tower)


def test_a_tower_for_one_tile_at_a_time_gets_one_at_a_time():
    tower = made(TOWERS["siglip"])
    forward = tower.model.forward

    def single(pixel_values: torch.Tensor, **given: Any) -> Any:
        if len(pixel_values) != 1:
            raise NotImplementedError("batches")
        return forward(pixel_values=pixel_values, **given)

    tower.model.forward = single
    prove_tiles(tower)
    assert_apart(tower)


class Batch(nn.Module):
    """Batch norm over tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.norm(states.transpose(1, 2)).transpose(1, 2)


def test_batch_norm_stays_in_evaluation_mode():
    tower = made(TOWERS["siglip"])
    tower.model.post_layernorm = Batch(32)
    prove_tiles(tower)
    assert (tower.alone, tower.still) == (False, True)
    assert "evaluation mode" in tower.notes[0]
    tower.train()
    assert tower.training
    assert not tower.model.training
    assert_apart(tower)


def test_dropped_paths_are_no_mixing():
    tower = made(BeitConfig(**VISION, drop_path_rate=0.5, hidden_dropout_prob=0.3))
    prove_tiles(tower)
    assert (tower.alone, tower.still, tower.notes) == (False, False, ())
    assert tower.train().model.training


def test_tokens_that_training_drops_keep_the_tower_in_evaluation_mode():
    tower = made(TOWERS["siglip"])
    forward = tower.model.forward

    def dropping(pixel_values: torch.Tensor, **given: Any) -> Any:
        states = forward(pixel_values=pixel_values, **given).last_hidden_state
        return SimpleNamespace(last_hidden_state=states[:, :8] if tower.model.training else states)

    tower.model.forward = dropping
    prove_tiles(tower)
    assert tower.still
    assert tower.train()(tiles(2)).shape == (2, 16, 32)


def test_tokens_after_the_patches_are_left_out():
    """YOLOS has one CLS token, its patches, then detection tokens."""
    tower = made(YolosConfig(**{**VISION, "image_size": [SIDE, SIDE]}, num_detection_tokens=5))
    assert tower.prefix == 6
    prove_tiles(tower)
    assert (tower.prefix, tower.patches) == (1, 16)
    assert "1 before and 5 after" in tower.notes[0]
    pixels = (tiles(2).float() - 127.5) / 63.75
    expected = tower.model(pixel_values=pixels).last_hidden_state[:, 1:17]
    torch.testing.assert_close(tower(tiles(2)), expected, rtol=1e-4, atol=1e-4)
    assert tower.around(tower.model).prefix == 1


@pytest.mark.parametrize("order", ["transposed", "windows", "serpentine", "upside down"])
def test_another_order_of_tokens_is_refused(order: str):
    tower = made(TOWERS["siglip"])
    grid = torch.arange(16).reshape(4, 4)
    windows = grid.reshape(2, 2, 2, 2).transpose(1, 2)
    orders = {
        "transposed": grid.T,
        "windows": windows,
        "serpentine": torch.stack([grid[0], grid[1].flip(0), grid[2], grid[3].flip(0)]),
        "upside down": grid.flip(0),
    }
    moved = orders[order].flatten()
    forward = tower.model.forward

    def other(pixel_values: torch.Tensor, **given: Any) -> Any:
        states = forward(pixel_values=pixel_values, **given).last_hidden_state
        return SimpleNamespace(last_hidden_state=states[:, moved])

    tower.model.forward = other
    with pytest.raises(ModelError, match=r"not give one token per patch, row by row: .*\(0, 3\)"):
        prove_tiles(tower)


def test_features_drawn_at_random_are_refused():
    tower = made(TOWERS["siglip"])
    forward = tower.model.forward

    def shuffled(pixel_values: torch.Tensor, **given: Any) -> Any:
        states = forward(pixel_values=pixel_values, **given).last_hidden_state
        return SimpleNamespace(last_hidden_state=states[:, torch.randperm(16)])

    tower.model.forward = shuffled
    with pytest.raises(ModelError, match="other features for the same tile each time"):
        prove_tiles(tower)


def test_a_masked_autoencoder_neither_masks_nor_shuffles(parts: Parts, tmp_path):
    """Its encoder with all patches in order, whatever share of them its config masks."""
    with pytest.raises(ModelError, match="vit_mae gives 5 tokens"):
        made(ViTMAEConfig(**VISION))
    save_tower(ViTMAEConfig(**VISION, mask_ratio=0.75), tmp_path / "tower")
    config = parts.config().model_copy(update={"tower": str(tmp_path / "tower")})
    assert build(config, weights="meta").mllm.tower.prefix == 1
    bundle = build(config, 0)
    tower = bundle.mllm.tower.eval()
    assert (tower.alone, tower.prefix, tower.patches) == (False, 1, 16)
    assert "masks nothing" in tower.notes[0]
    assert_apart(tower)
    plain = ViTModel(ViTConfig(**VISION), add_pooling_layer=False).eval()
    plain.load_state_dict(tower.model.state_dict(), strict=False)
    expected = plain(pixel_values=tower.normalised(tiles(2))).last_hidden_state[:, 1:]
    torch.testing.assert_close(tower(tiles(2)), expected)
    save_part(bundle, "tower", tmp_path / "saved")
    saved = AutoModel.from_pretrained(tmp_path / "saved").eval()
    noise = torch.arange(16.0)[None]
    found = saved(pixel_values=tower.normalised(tiles(1)), noise=noise).last_hidden_state[:, 1:]
    assert torch.equal(found, tower(tiles(1)))


def test_features_that_are_not_finite_are_refused():
    tower = made(TOWERS["siglip"])
    with torch.no_grad():
        tower.model.post_layernorm.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        prove_tiles(tower)


def test_a_tower_that_reads_sizes_from_its_tensors_is_planned_and_trained(parts: Parts, tmp_path):
    save_tower(Idefics3VisionConfig(**VISION), tmp_path / "tower")
    config = parts.config().model_copy(update={"tower": str(tmp_path / "tower")})
    planned, trained = build(config, weights="meta").mllm.tower, build(config, 0).mllm.tower
    assert (planned.prefix, planned.width, planned.idle) == (0, 32, trained.idle)
    assert_apart(trained.eval())


def test_a_tower_that_runs_tile_by_tile_is_not_sharded(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
):
    model = parts.build().mllm
    model.tower.alone = True
    monkeypatch.setattr("sailvit.models.structure.parallel.world", lambda: 2)
    with pytest.raises(RecipeError, match=r"set parallel\.mode to replicate"):
        parallelize(model, ParallelConfig(mode="shard"), torch.device("cpu"), bf16=False)
