"""Drift per block between two checkpoints of a tower."""

import pytest
import torch

from sailvit.core.errors import ModelError
from sailvit.evaluation.affinity.drift import block_drift
from sailvit.models.blocks import find_blocks
from sailvit.models.loading.parts import load_tower
from tiny_parts import picture

IMAGES = [picture(n) for n in range(6)]


@pytest.fixture
def towers(parts):
    return [load_tower(parts.config("siglip"))[0].eval() for _ in range(2)]


def test_a_tower_has_not_drifted_from_itself(towers):
    for each in block_drift(*towers, IMAGES):
        assert each.cka.value == pytest.approx(1)
        assert each.change.value == 0
        assert each.cka.chance < 1


def test_only_blocks_from_the_changed_one_on_drift(towers):
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in find_blocks(towers[0].model)[1][1].mlp.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.5)
    first, second = block_drift(*towers, IMAGES)
    assert (first.block, second.block) == (1, 2)
    assert first.change.value == 0
    assert second.change.value > 0.01
    assert second.change.low < second.change.value < second.change.high
    assert second.cka.low <= second.cka.value < 1


def test_the_towers_stay_as_they_were(towers):
    tile = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    before = towers[0](tile)
    block_drift(*towers, IMAGES[:2])
    assert torch.equal(towers[0](tile), before)


def test_towers_of_other_shapes_have_no_drift(parts, towers):
    other = load_tower(parts.config("clip"))[0]
    other.width = 31
    with pytest.raises(ModelError, match="two checkpoints of one tower"):
        block_drift(towers[0], other, IMAGES)
