"""A tower at another size: one table, interpolated once as its family does, and a config that agrees."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoModel, BeitConfig, DeiTConfig, PretrainedConfig

from sailvit.models.towers.position_table import at_size
from tiny_parts import PATCH, SIDE, TOWERS

VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": SIDE,
    "patch_size": PATCH,
}
RESIZED: dict[str, PretrainedConfig] = {
    "siglip": TOWERS["siglip"],
    "clip": TOWERS["clip"],
    "vit": TOWERS["vit"],
    "deit": DeiTConfig(**VISION),
    "beit": BeitConfig(**VISION, use_absolute_position_embeddings=True),
}


@torch.no_grad()
@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("name", sorted(RESIZED))
def test_features_are_those_of_the_familys_own_interpolation(name: str, size: int):
    torch.manual_seed(0)
    model = AutoModel.from_config(copy.deepcopy(RESIZED[name])).eval()
    state = torch.random.get_rng_state()
    resized = at_size(model, size)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (resized.config.image_size, model.config.image_size) == (size, SIDE)
    pixels = torch.randn(1, 3, size, size)
    expected = model(pixels, interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(resized(pixels).last_hidden_state, expected, rtol=0, atol=1e-5)


def test_without_weights_it_costs_nothing():
    with torch.device("meta"):
        model = AutoModel.from_config(copy.deepcopy(TOWERS["siglip"]))
    table = at_size(model, 64).embeddings.position_embedding.weight
    assert (tuple(table.shape), table.device.type) == ((64, 32), "meta")


def test_a_table_without_the_familys_own_code_is_resized_and_reloads(tmp_path):
    torch.manual_seed(0)
    model = AutoModel.from_config(copy.deepcopy(TOWERS["aimv2"])).eval()
    resized = at_size(model, 48)
    assert resized.config.image_size == 48
    name = "embeddings.position_embedding.weight"
    old, new = (
        made.state_dict()[name].T.reshape(32, side, side)
        for made, side in ((model, 4), (resized, 6))
    )
    expected = torch.nn.functional.interpolate(
        old[None], size=(6, 6), mode="bicubic", antialias=True
    )[0]
    torch.testing.assert_close(new, expected)
    resized.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    pixels = torch.randn(1, 3, 48, 48)
    assert torch.equal(again(pixels).last_hidden_state, resized(pixels).last_hidden_state)


def test_sin_cos_positions_need_no_table():
    config = copy.deepcopy(TOWERS["aimv2"])
    config.is_native = True
    model = AutoModel.from_config(config)
    assert at_size(model, 48) is model


@pytest.mark.parametrize("name", ["siglip", "dinov2", "siglip2", "internvl", "aimv2"])
def test_a_tower_of_its_own_size_or_of_any_is_left_alone(name: str):
    model = AutoModel.from_config(copy.deepcopy(TOWERS[name]))
    assert at_size(model, SIDE if name in ("siglip", "aimv2") else 64) is model
