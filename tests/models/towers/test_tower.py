"""Towers: prefix, grid and order of patches, what trains nothing, other sizes, and what is refused."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel, PretrainedConfig, SegformerConfig

from sailvit.core.errors import ModelError
from sailvit.models.towers.families import FAMILIES
from sailvit.models.towers.layers import FeatureChoice
from sailvit.models.towers.tower import Preprocessing, Tower
from tiny_parts import PATCH, SIDE, TOWERS, Parts

PREFIX = dict.fromkeys(TOWERS, 0) | {
    "clip": 1,
    "dinov2": 1,
    "registers": 4,
    "internvl": 1,
    "vit": 1,
}
IDLE = {
    "aimv2": {"head."},
    "siglip": {"head."},
    "siglip2": {"head."},
    "clip": {"post_layernorm."},
    "dinov2": {"embeddings.mask_token"},
    "registers": {"embeddings.mask_token"},
    "internvl": set(),
    "vit": {"pooler."},
}


def made(config: PretrainedConfig, size: int = SIDE, choice: FeatureChoice | None = None) -> Tower:
    torch.manual_seed(0)
    model = AutoModel.from_config(config, attn_implementation="sdpa")
    return Tower(
        model, Preprocessing(size, (0.5,) * 3, (0.25,) * 3), choice or FeatureChoice()
    ).eval()


def noise(size: int = SIDE, count: int = 1) -> torch.Tensor:
    return torch.randint(
        0,
        256,
        (count, 3, size, size),
        generator=torch.Generator().manual_seed(3),
        dtype=torch.uint8,
    )


@pytest.mark.parametrize("name", TOWERS)
def test_prefix_grid_and_width(name: str):
    tower = made(TOWERS[name])
    assert (tower.prefix, tower.patch, tower.side, tower.patches, tower.width) == (
        PREFIX[name],
        PATCH,
        4,
        16,
        32,
    )
    assert tower(noise(count=2)).shape == (2, 16, 32)


@pytest.mark.parametrize("name", TOWERS)
def test_idle_parameters_are_those_that_features_do_not_depend_on(name: str):
    tower = made(TOWERS[name])
    prefixes = {next((p for p in IDLE[name] if idle.startswith(p)), idle) for idle in tower.idle}
    assert prefixes == IDLE[name]
    tower(noise()).sum().backward()
    without = {n for n, p in tower.model.named_parameters() if p.grad is None}
    assert without == tower.idle


@pytest.mark.parametrize("name", TOWERS)
def test_patch_tokens_are_in_row_major_order(name: str):
    """With attention's output projections zeroed a patch token depends on its own pixels alone."""
    tower = made(TOWERS[name])
    silent = [
        parameter
        for key, parameter in tower.model.named_parameters()
        if any(
            end in key
            for end in ("out_proj.", "attention.output.dense.", "projection_layer.", "o_proj.")
        )
    ]
    assert silent
    with torch.no_grad():
        for parameter in silent:
            parameter.zero_()
    plain = noise()
    before = tower(plain)
    for row, column in ((0, 0), (0, 3), (1, 2), (3, 0)):
        changed = plain.clone()
        changed[:, :, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] ^= 255
        moved = (tower(changed) - before).abs().amax(dim=-1)[0] > 1e-6
        assert moved.nonzero().flatten().tolist() == [row * 4 + column]


@pytest.mark.parametrize("name", TOWERS)
def test_pixels_are_normalised_as_the_preprocessor_says(name: str):
    tower = made(TOWERS[name])
    tiles = noise()
    pixels = (tiles.float() / 255 - 0.5) / 0.25
    expected = tower.model(**tower.family.pixels(pixels, PATCH)).last_hidden_state[
        :, PREFIX[name] :
    ]
    torch.testing.assert_close(tower(tiles), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(TOWERS))
def test_another_size_is_interpolated(name: str):
    tower = made(TOWERS[name], size=48)
    assert tower.side == 6
    assert tower(noise(48)).shape == (1, 36, 32)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        (
            "siglip",
            36,
            "36 px is not a multiple of the tower's patch size 8 px; set model.image.size to 32 or 40",
        ),
    ],
)
def test_a_size_that_does_not_fit_is_refused(name: str, size: int, message: str):
    with pytest.raises(ModelError, match=message):
        made(TOWERS[name], size=size)


@pytest.mark.parametrize("name", ["aimv2", "clip", "dinov2", "vit"])
def test_an_earlier_layer_leaves_the_last_block_idle(name: str):
    tower = made(TOWERS[name], SIDE, FeatureChoice((-2,)))
    states = tower.model(
        **tower.family.pixels((noise().float() - 127.5) / 63.75, PATCH), output_hidden_states=True
    )
    torch.testing.assert_close(
        tower(noise()), states.hidden_states[-2][:, tower.prefix :], rtol=1e-4, atol=1e-4
    )
    assert any(".1." in idle for idle in tower.idle)
    assert not any(".0." in idle for idle in tower.idle)


@pytest.mark.parametrize("name", ["clip", "registers"])
def test_an_unlisted_family_is_counted(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(FAMILIES, TOWERS[name].model_type)
    tower = made(TOWERS[name])
    assert tower.prefix == PREFIX[name]
    assert tower(noise()).shape == (1, 16, 32)


def test_a_row_of_the_table_that_is_wrong_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(FAMILIES, "clip_vision_model", FAMILIES["aimv2_vision_model"])
    with pytest.raises(
        ModelError, match=r"gives 17 tokens for a 32 px tile; expected 0 CLS.*4 x 4 patches = 16"
    ):
        made(TOWERS["clip"])


def test_patches_must_be_square():
    config = TOWERS["internvl"].__class__(**{**TOWERS["internvl"].to_dict(), "patch_size": [8, 16]})
    with pytest.raises(ModelError, match="8 x 16 px; only square"):
        made(config)


def test_a_model_without_patches_is_refused():
    with pytest.raises(ModelError, match="patch"):
        made(SegformerConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]))


def test_the_mean_travels_with_the_tower(parts: Parts):
    tower = parts.build().mllm.tower
    assert tower.preprocessing == Preprocessing(SIDE, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    assert not [name for name in tower.state_dict() if name in ("mean", "std")]
