"""One packed row for images of all grids: the features and gradients of a call per grid."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import (
    Aimv2VisionConfig,
    AutoModel,
    BeitConfig,
    DINOv3ViTConfig,
    PretrainedConfig,
)

from sailvit.core.recipe import ParallelConfig
from sailvit.models.blocks import find_blocks
from sailvit.models.packing.attention import register_attention
from sailvit.models.packing.segments import Segments
from sailvit.models.packing.tower_attention import TOWER, attending_within, tower_attention
from sailvit.models.structure.parallel import parallelize
from sailvit.models.towers.native_proof import prove_native, row_reader
from sailvit.models.towers.tower import Preprocessing, Tower
from tiny_parts import PATCH, SIDE, TOWERS, VISION, Parts

FAMILIES: dict[str, PretrainedConfig] = {
    **TOWERS,
    "aimv2 native": Aimv2VisionConfig(**VISION, use_head=False, is_native=True),
    "beit": BeitConfig(**VISION, use_absolute_position_embeddings=True),
}
GRIDS = ((1, 3), (2, 1), (1, 3), (1, 1), (3, 2))


def made(config: PretrainedConfig, attention: str = TOWER) -> Tower:
    register_attention()
    torch.manual_seed(0)
    model = AutoModel.from_config(copy.deepcopy(config), attn_implementation=attention)
    tower = Tower(model, Preprocessing(SIDE, (0.5,) * 3, (0.25,) * 3)).eval()
    prove_native(tower, 2)
    return tower


def tiles() -> torch.Tensor:
    count = sum(rows * columns for rows, columns in GRIDS)
    generator = torch.Generator().manual_seed(3)
    return torch.randint(
        0, 256, (count, 3, 2 * PATCH, 2 * PATCH), dtype=torch.uint8, generator=generator
    )


def result(tower: Tower) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    features = tower(tiles(), GRIDS)
    tower.zero_grad()
    features.square().mean().backward()
    return features.detach(), {
        n: p.grad.clone() for n, p in tower.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.parametrize("recompute", [False, True])
def test_a_row_gives_the_features_and_gradients_of_a_call_per_grid(name: str, recompute: bool):
    tower = made(FAMILIES[name])
    expected, grads = result(tower)
    reader = row_reader(tower, 2)
    assert reader is not None
    tower.row = reader
    if recompute:
        for block in find_blocks(tower.model)[1]:
            forward = block.forward
            block.forward = lambda *a, f=forward, **k: torch.utils.checkpoint.checkpoint(
                f, *a, use_reentrant=False, **k
            )
    calls: list[int] = []
    find_blocks(tower.model)[1][1].register_forward_hook(lambda *_: calls.append(1))
    found, own = result(tower)
    assert len(calls) == 1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert own.keys() == grads.keys()
    for key, grad in own.items():
        torch.testing.assert_close(grad, grads[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("why", ["rotary positions", "attention of its own"])
def test_a_tower_that_cannot_be_read_so_is_left_as_it_was(why: str):
    if why == "rotary positions":
        tower = made(DINOv3ViTConfig(**VISION, num_register_tokens=1))
    else:
        tower = made(TOWERS["siglip"], "eager")
    blocks = find_blocks(tower.model)[1]
    before, expected = [block.forward for block in blocks], tower(tiles(), GRIDS)
    assert row_reader(tower, 2) is None
    assert [block.forward for block in blocks] == before
    assert find_blocks(tower.model)[1] == blocks
    assert torch.equal(tower(tiles(), GRIDS), expected)


def test_the_cpu_reads_grid_by_grid_and_a_model_that_failed_is_whole_again(parts: Parts):
    model = parts.build("siglip", image={"mode": "native"}).mllm
    parallelize(model, ParallelConfig(), torch.device("cpu"), bf16=False)
    assert model.tower.row is None
    reader = row_reader(model.tower, 2)
    blocks = find_blocks(model.tower.model)[1]
    with pytest.raises(RuntimeError):
        reader(model.tower, tiles()[:, :, :1], GRIDS)
    assert find_blocks(model.tower.model)[1] == blocks


def test_attention_stays_within_the_pictures_of_a_row():
    generator = torch.Generator().manual_seed(0)
    lengths, module = (5, 3, 5, 1), nn.Identity()
    module.is_causal = False
    bounds = torch.tensor([0, 5, 8, 13, 14], dtype=torch.int32)
    query, key, value = (torch.randn(1, 4, 14, 8, generator=generator) for _ in range(3))
    with attending_within(Segments(bounds, 5)):
        found, _ = tower_attention(module, query, key, value, None, scaling=0.3)
    at = 0
    for length in lengths:
        part = [tensor[:, :, at : at + length] for tensor in (query, key, value)]
        expected, _ = tower_attention(module, *part, None, scaling=0.3)
        torch.testing.assert_close(found[:, at : at + length], expected)
        at += length
