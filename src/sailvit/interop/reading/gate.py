"""Whether transformers' own class makes the same visual tokens of a tower's features as the
connector that was planned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText
from transformers.modeling_outputs import BaseModelOutputWithPooling

from sailvit.interop.reading.plans import PartPlan
from sailvit.interop.reading.selection import RETURNED, Selection
from sailvit.interop.reading.stored import Names
from sailvit.models.guards.errors import ForeignErrors
from sailvit.models.structure.connector import CONNECTORS, Connector

PROJECTOR = "multi_modal_projector."
"""What these classes call the connector."""
_NEAR = 1e-4
"""Largest difference of visual tokens in fp32, as a share of the largest one."""
_BLOCKS = 2
"""Merged neighbourhoods per side of the grid that is compared."""


class _Features(nn.Module):
    """Stands in the tower's place, and gives features that were drawn."""

    def __init__(self, states: tuple[torch.Tensor, ...], last: torch.Tensor, patch: int) -> None:
        super().__init__()
        self.states, self.last, self.patch_size = states, last, patch

    def forward(self, *inputs: Any, **options: Any) -> BaseModelOutputWithPooling:
        """The states float[1, N, D] of all layers, whatever the pixels."""
        del inputs, options
        return BaseModelOutputWithPooling(last_hidden_state=self.last, hidden_states=self.states)


@torch.no_grad()
def connector_problem(config: Any, names: Names, plan: PartPlan, selection: Selection) -> str:
    """What differs from the class that the checkpoint is of; empty where nothing does.

    The tower itself does not run: the class gets drawn states in its place, and our connector
    those of them that `selection` names.
    """
    ours = _ours(plan)
    side, prefix = _BLOCKS * ours.config.merge, selection.prefix
    generator = torch.Generator().manual_seed(0)
    shape = (1, prefix + side**2, ours.config.tower_width // len(selection.layers))
    blocks = int(config.vision_config.num_hidden_layers)
    *states, last = (torch.randn(shape, generator=generator) for _ in range(blocks + 2))
    if selection.norm is None and config.model_type != RETURNED:
        # As in towers whose last state is what they return.
        states[-1] = last
    read = [_state(states, last, layer, selection) for layer in selection.layers]
    expected = ours(torch.cat(read, dim=-1)[:, prefix:])
    patch = config.vision_config.patch_size
    patch = patch[0] if isinstance(patch, list | tuple) else patch
    with ForeignErrors(f"transformers' {config.model_type} cannot be compared with"):
        with torch.device("meta"):
            inner = AutoModelForImageTextToText.from_config(config).model
        inner.multi_modal_projector = _theirs(inner, config, names, plan)
        inner.vision_tower = _Features(tuple(states), last, patch)
        found = inner.get_image_features(**_inputs(config, side, patch)).pooler_output
    tokens = torch.cat([each.reshape(-1, each.shape[-1]) for each in found])
    return _apart(tokens, expected)


@torch.no_grad()
def projector_problem(config: Any, names: Names, plan: PartPlan, selection: Selection) -> str:
    """What differs from the connector of the class that the checkpoint is of, by itself; empty
    where nothing does.
    """
    del selection
    ours = _ours(plan)
    drawn = torch.Generator().manual_seed(0)
    shape = (1, (_BLOCKS * ours.config.merge) ** 2, ours.config.tower_width)
    features = torch.randn(shape, generator=drawn)
    with ForeignErrors(f"transformers' {config.model_type} cannot be compared with"):
        with torch.device("meta"):
            inner = AutoModelForImageTextToText.from_config(config).model
        found = _theirs(inner, config, names, plan)(features)
    return _apart(found[0], ours(features))


def _apart(tokens: torch.Tensor, expected: torch.Tensor) -> str:
    """How visual tokens float[V, D] of the class differ from ours, float[1, V, D]."""
    if tokens.shape == expected[0].shape:
        apart = float((tokens - expected[0]).abs().max() / expected.abs().max())
        if apart <= _NEAR:
            return ""
        return f"transformers' class gives other visual tokens for the same features ({apart:.1e})"
    return (
        f"transformers' class gives visual tokens {list(tokens.shape)} where ours gives"
        f" {list(expected[0].shape)}"
    )


def _state(
    states: Sequence[torch.Tensor], last: torch.Tensor, layer: int, selection: Selection
) -> torch.Tensor:
    """What our tower gives for a layer, of states that were drawn for the class."""
    is_last = layer in (-1, len(states) - 1)
    return last if is_last and selection.norm is None else states[layer]


def _ours(plan: PartPlan) -> Connector:
    config: Any = plan.config
    connector: Connector = CONNECTORS[config.kind](config).float().eval()
    connector.load_state_dict({piece.name: piece.fetch().float() for piece in plan.pieces})
    return connector


def _theirs(inner: Any, config: Any, names: Names, plan: PartPlan) -> nn.Module:
    """The class's own connector with the checkpoint's weights."""
    made: nn.Module = type(inner.multi_modal_projector)(config).float().eval()
    made.load_state_dict(
        {name.partition(PROJECTOR)[2]: names[name].read().float() for name in plan.used}
    )
    return made


def _inputs(config: Any, side: int, patch: int) -> dict[str, Any]:
    """What the class asks for besides features, for one image of `side` x `side` patches."""
    size = side * patch
    inputs: dict[str, Any] = {"pixel_values": torch.zeros(1, 3, size, size)}
    if config.model_type == "lfm2_vl":
        shapes = torch.tensor([[side, side]])
        return {
            **inputs,
            "spatial_shapes": shapes,
            "pixel_attention_mask": torch.ones(1, side**2, dtype=torch.long),
        }
    inputs["vision_feature_layer"] = config.vision_feature_layer
    if config.model_type == "mistral3":
        return {**inputs, "image_sizes": torch.tensor([[size, size]])}
    if config.model_type == "vipllava":
        return inputs
    return {**inputs, "vision_feature_select_strategy": config.vision_feature_select_strategy}
