"""Blocks: the list of modules that a model runs through, whatever else it holds in lists."""

from __future__ import annotations

import torch
from small_models import TEXT
from torch import nn
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

from sailvit.models.blocks import find_blocks


def test_experts_are_no_blocks_where_they_outnumber_the_layers():
    """Kept as a list, as in older and in foreign code; transformers fuses them into one tensor."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Qwen3MoeConfig(**TEXT, num_experts=8))
        for layer in model.model.layers:
            layer.mlp.experts = nn.ModuleList(nn.Linear(48, 48) for _ in range(8))
    name, blocks = find_blocks(model)
    assert name == "model.layers"
    assert blocks == list(model.model.layers)
    assert len(blocks) == 4


def test_the_longest_of_lists_side_by_side_counts():
    model = nn.ModuleDict(
        {
            "norms": nn.ModuleList(nn.LayerNorm(4) for _ in range(2)),
            "layers": nn.ModuleList(nn.Linear(4, 4) for _ in range(3)),
        }
    )
    assert find_blocks(model) == ("layers", list(model["layers"]))
    assert find_blocks(nn.Linear(4, 4)) == ("", [])
