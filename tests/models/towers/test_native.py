"""Native resolution: any grid, positions of that grid, and no image sees another."""

from __future__ import annotations

import copy
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    Aimv2VisionConfig,
    AutoModel,
    BeitConfig,
    DeiTConfig,
    DINOv3ViTConfig,
    Idefics3VisionConfig,
    MLCDVisionConfig,
    PixtralVisionConfig,
    PretrainedConfig,
    ViTMSNConfig,
)
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2VisionTransformerPretrainedModel as Qwen2Vision,
)

from sailvit.core.errors import ModelError
from sailvit.core.tiles import cut, joined
from sailvit.models.packing.attention import register_attention
from sailvit.models.packing.tower_attention import TOWER
from sailvit.models.towers.native import into_tiles
from sailvit.models.towers.native_proof import prove_native
from sailvit.models.towers.position_table import resized_table
from sailvit.models.towers.proof import prove_tiles
from sailvit.models.towers.tower import Preprocessing, Tower
from tiny_parts import PATCH, SIDE, TOWERS, VISION
from tiny_sources import vision_config

FAMILIES: dict[str, PretrainedConfig] = {
    **TOWERS,
    "aimv2 native": Aimv2VisionConfig(**VISION, use_head=False, is_native=True),
    "beit": BeitConfig(**VISION, use_relative_position_bias=True),
    "deit": DeiTConfig(**VISION),
    "dinov3": DINOv3ViTConfig(**VISION, num_register_tokens=3),
    "idefics3": Idefics3VisionConfig(**VISION),
    "mlcd": MLCDVisionConfig(**VISION),
    "msn": ViTMSNConfig(**VISION),
    "pixtral": PixtralVisionConfig(**VISION),
}
ROWS = {f"qwen{number}_vl": vision_config(f"qwen{number}_vl_vision") for number in (2, "2_5", 3)}
"""Their own mergers join 2 x 2 patches."""
MERGE = 2
TILE = MERGE * PATCH


def made(name: str, merge: int = MERGE) -> Tower:
    register_attention()
    torch.manual_seed(0)
    config = copy.deepcopy({**FAMILIES, **ROWS}[name])
    made = AutoModel.from_config if name != "qwen2_vl" else Qwen2Vision._from_config
    model = made(config, attn_implementation=TOWER)
    tower = Tower(model, Preprocessing(SIDE, (0.5,) * 3, (0.25,) * 3)).eval()
    prove_tiles(tower)
    prove_native(tower, merge)
    return tower


def noise(count: int, height: int = SIDE, width: int = SIDE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def test_tiles_of_pictures_make_up_the_same_pictures():
    pictures = noise(2, 3 * TILE, 5 * TILE)
    tiles = cut(pictures, TILE)
    assert torch.equal(tiles[6], pictures[0, :, TILE : 2 * TILE, TILE : 2 * TILE])
    assert torch.equal(joined(tiles, (3, 5)), pictures)


@pytest.mark.parametrize("name", sorted({**FAMILIES, **ROWS}))
def test_at_the_towers_own_size_features_and_gradients_are_those_of_fixed_mode(name: str):
    tower = made(name)
    pictures, results = noise(2), []
    weight = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(1))
    side = SIDE // TILE
    for native in (False, True):
        if native:
            features = tower(cut(pictures, TILE), ((side, side),) * 2)
            given = into_tiles(weight, (side, side), MERGE)
        else:
            features, given = tower(pictures), weight
        tower.zero_grad()
        (features * given).sum().backward()
        grads = {n: p.grad.clone() for n, p in tower.named_parameters() if p.grad is not None}
        results.append((features if native else into_tiles(features, (side, side), MERGE), grads))
    (fixed, expected), (native, found) = results
    torch.testing.assert_close(native, fixed, rtol=1e-5, atol=1e-5)
    assert found.keys() == expected.keys()
    for key, grad in found.items():
        torch.testing.assert_close(grad, expected[key], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "merge"), [*product(sorted(FAMILIES), (1, 2, 3)), *product(ROWS, (2, 4))]
)
def test_images_of_a_batch_are_what_each_is_alone(name: str, merge: int):
    tower, tile = made(name, merge), merge * PATCH
    grids = ((1, 3), (2, 1), (1, 3), (1, 1), (3, 2))
    images = [noise(rows * columns, tile, tile) for rows, columns in grids]
    together = tower(torch.cat(images), grids)
    alone = torch.cat([tower(image, (grid,)) for image, grid in zip(images, grids, strict=True)])
    assert together.shape == (sum(map(len, images)), merge**2, 32)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_positions_of_a_table_are_resized_to_the_grid_and_learn_from_it():
    tower = made("aimv2")
    assert tower.table == "embeddings.position_embedding"
    table = tower.model.get_submodule(tower.table).weight
    looked_up: list[torch.Tensor] = []
    block = tower.model.encoder.layers[0]
    block.register_forward_pre_hook(lambda module, given: looked_up.append(given[0].detach()))
    with torch.no_grad():
        tower.model.embeddings.patch_embed.weight.zero_()
        tower.model.embeddings.patch_embed.bias.zero_()
        tower.model.embeddings.rms_norm.weight.zero_()
    tower(noise(6, TILE, TILE), ((2, 3),)).sum().backward()
    torch.testing.assert_close(looked_up[0][0], resized_table(table.detach(), (4, 6)))
    assert bool((table.grad.norm(dim=1) > 0).all())
    # As many patches as the table has rows, in another shape: its rows are of another place.
    tower(noise(4, TILE, TILE), ((1, 4),))
    torch.testing.assert_close(looked_up[1][0], resized_table(table.detach(), (2, 8)))


def plain_forward(tower: Tower, change: Any) -> None:
    """The tower's model with `change(pixels, states)` behind it."""
    forward = tower.model.forward

    def changed(pixel_values: torch.Tensor, **given: Any) -> Any:
        given.pop("interpolate_pos_encoding", None)
        wide = pixel_values.shape[-2:] != (SIDE, SIDE)
        if wide:
            given["interpolate_pos_encoding"] = True
        states = forward(pixel_values=pixel_values, **given).last_hidden_state
        return SimpleNamespace(last_hidden_state=change(pixel_values, states))

    tower.model.forward = changed


def refused(change: Any) -> str:
    tower = made("siglip")
    plain_forward(tower, change)
    prove_tiles(tower)
    with pytest.raises(ModelError, match="cannot take images in native resolution") as caught:
        prove_native(tower, MERGE)
    return str(caught.value)


def test_a_tower_whose_images_see_each_other_is_refused():
    def mixed(pixels: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        wide = pixels.shape[-2:] != (SIDE, SIDE)
        return states + 0.01 * states.mean(dim=0) * wide

    assert "images of a batch change each other" in refused(mixed)


def test_a_tower_that_gives_columns_before_rows_is_refused():
    def turned(pixels: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        rows, columns = (side // PATCH for side in pixels.shape[-2:])
        if rows == columns:
            return states
        cells = states.reshape(len(states), rows, columns, -1).transpose(1, 2)
        return cells.reshape(states.shape)

    assert "in a wide image patch 11 moves the token of patch" in refused(turned)


def test_a_tower_of_one_size_is_refused_with_its_own_reason():
    def square(pixels: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        if pixels.shape[-2] != pixels.shape[-1]:
            raise ValueError("only square images of 32 px")
        return states

    told = refused(square)
    assert "only square images of 32 px" in told
    assert "set model.image.mode to fixed or tiled" in told


def test_the_proof_of_a_tower_leaves_no_trace():
    tower = made("siglip")
    state = {name: tensor.clone() for name, tensor in tower.model.state_dict().items()}
    stream = torch.get_rng_state()
    prove_native(tower.train(), MERGE)
    assert torch.equal(torch.get_rng_state(), stream)
    assert tower.training
    assert all(torch.equal(t, state[n]) for n, t in tower.model.state_dict().items())
