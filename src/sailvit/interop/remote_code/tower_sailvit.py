"""The vision tower: how it is made of its config, and how pixels become tokens."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from transformers import MODEL_MAPPING, AutoModel


def make_tower(config: Any) -> Any:
    """A vision model with fresh weights, of the class that its config names where `AutoModel` has
    no entry for it.
    """
    if type(config) in MODEL_MAPPING:
        return AutoModel.from_config(config)
    # So transformers names its files: configuration_x.py beside modeling_x.py.
    module = type(config).__module__.replace(".configuration_", ".modeling_")
    return getattr(importlib.import_module(module), config.architectures[0])._from_config(config)


def tower_tokens(
    tower: Any, image: Mapping[str, Any], pixels: torch.Tensor, given: Mapping[str, Any]
) -> torch.Tensor:
    """All tokens float[I, N, C] of the tower's chosen layers, of tiles float[I, 3, H, W].

    Args:
        tower: the vision model.
        image: what config.json says of images.
        pixels: the tiles.
        given: what else the vision model takes.
    """
    inputs = {**given, **tower_inputs(image, pixels)}
    layers, count = image["layers"], len(pixels)
    if layers == [-1] and image["last_normed"]:
        return _rows(tower(**inputs).last_hidden_state, image, count)
    made = tower(**{**inputs, "output_hidden_states": True})
    ends = {-1, len(made.hidden_states) - 1} if image["last_normed"] else set()
    states = [
        _rows(made.last_hidden_state if layer in ends else made.hidden_states[layer], image, count)
        for layer in layers
    ]
    if image["join"] == "mean":
        return torch.stack(states).mean(dim=0)
    return torch.cat(states, dim=-1)


def tower_inputs(image: Mapping[str, Any], pixels: torch.Tensor) -> dict[str, Any]:
    """What the vision model takes for tiles float[I, 3, H, W]."""
    inputs: dict[str, Any] = {"pixel_values": pixels}
    patch, side = int(image["patch"]), int(image["size"]) // int(image["patch"])
    if image["row"]:
        merge, frames = int(image["row"]["merge"]), int(image["row"]["frames"])
        blocks = side // merge
        cut = pixels.reshape(len(pixels), -1, blocks, merge, patch, blocks, merge, patch)
        cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(-1, pixels.shape[1], 1, patch, patch)
        return {
            # A picture is a still of that many frames.
            "hidden_states": cut.expand(-1, -1, frames, -1, -1).flatten(1),
            "grid_thw": torch.tensor([[1, side, side]] * len(pixels), device=pixels.device),
        }
    if image["inputs"] == "patches":
        cut = pixels.reshape(len(pixels), -1, side, patch, side, patch)
        inputs = {
            "pixel_values": cut.permute(0, 2, 4, 3, 5, 1).reshape(len(pixels), side**2, -1),
            "pixel_attention_mask": None,
            "spatial_shapes": torch.tensor([[side, side]] * len(pixels)),
        }
    elif image["inputs"] == "ordered":
        # A masked autoencoder sorts its patches by noise; rising noise keeps their order.
        noise = torch.arange(side**2, dtype=pixels.dtype, device=pixels.device)
        inputs["noise"] = noise.expand(len(pixels), -1)
    if image["interpolate"]:
        inputs["interpolate_pos_encoding"] = True
    return inputs


def _rows(states: torch.Tensor, image: Mapping[str, Any], count: int) -> torch.Tensor:
    """Tokens float[I, P, C], row by row, of a map float[I, C, rows, columns], or of the states
    float[I*P, C] of a model that takes patches in a row of its own order; tokens as they are.
    """
    if image["row"]:
        order = torch.tensor(image["row"]["tokens"], device=states.device)
        return states.reshape(count, -1, states.shape[-1]).index_select(1, order)
    return states.flatten(2).transpose(1, 2) if states.ndim == 4 else states
