"""The vision tower: how it is made of its config, and how pixels become tokens."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import interpolate
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


def native_features(
    tower: Any,
    image: Mapping[str, Any],
    tiles: torch.Tensor,
    grids: torch.Tensor,
    given: Mapping[str, Any],
) -> torch.Tensor:
    """Patch features float[I, P, C] of tiles float[I, 3, H, W] that are, image by image, grids of
    int64[n, 2] rows and columns. Images of equal grids share a call.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    end = 0
    for rows, columns in grids.tolist():
        groups.setdefault((rows, columns), []).extend(range(end, end + rows * columns))
        end += rows * columns
    if end != len(tiles):
        raise ValueError(f"the image grids have {end} tiles, and {len(tiles)} are given")
    made, order = [], []
    side, patch = tiles.shape[-1], int(image["patch"])
    for (rows, columns), places in groups.items():
        cells = tiles[places].reshape(-1, rows, columns, *tiles.shape[1:])
        pictures = cells.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        tokens = patch_tokens(tower, image, pictures, given)
        split = tokens.reshape(-1, rows, side // patch, columns, side // patch, tokens.shape[-1])
        made.append(split.transpose(2, 3).flatten(3, 4).flatten(0, 2))
        order += places
    back = torch.tensor(order, device=tiles.device).argsort()
    return torch.cat(made)[back]


def patch_tokens(
    tower: Any, image: Mapping[str, Any], pixels: torch.Tensor, given: Mapping[str, Any]
) -> torch.Tensor:
    """The tokens float[I, P, C] of all patches of pictures float[I, 3, H, W], row by row."""
    # In a batch the pictures of towers that take them one by one would see each other.
    batches = torch.split(pixels, 1 if image["one_by_one"] else max(1, len(pixels)))
    tokens = torch.cat([tower_tokens(tower, image, pictures, given) for pictures in batches])
    height, width = (length // int(image["patch"]) for length in pixels.shape[2:])
    return tokens[:, image["prefix"] : image["prefix"] + height * width]


def tower_tokens(
    tower: Any, image: Mapping[str, Any], pixels: torch.Tensor, given: Mapping[str, Any]
) -> torch.Tensor:
    """All tokens float[I, N, C] of the tower's chosen layers, of pictures float[I, 3, H, W].

    Args:
        tower: the vision model.
        image: what config.json says of images.
        pixels: the pictures.
        given: what else the vision model takes.
    """
    inputs = {**given, **tower_inputs(tower, image, pixels)}
    layers, norm, count = image["layers"], image.get("norm"), len(pixels)
    plain = layers == [-1] and image["last_normed"]
    with _positions(tower, image, pixels):
        made = tower(**inputs if plain else {**inputs, "output_hidden_states": True})
    if plain:
        return _rows(made.last_hidden_state, image, count)
    ends = {-1, len(made.hidden_states) - 1} if image["last_normed"] else set()
    states = []
    for layer in layers:
        state = made.last_hidden_state if layer in ends else made.hidden_states[layer]
        # Where training took every state behind the final norm, the last one has been through it.
        early = norm is not None and layer not in ends
        state = tower.get_submodule(norm)(state) if early else state
        states.append(_rows(state, image, count))
    if image["join"] == "mean":
        return torch.stack(states).mean(dim=0)
    return torch.cat(states, dim=-1)


def tower_inputs(tower: Any, image: Mapping[str, Any], pixels: torch.Tensor) -> dict[str, Any]:
    """What the vision model takes for pictures float[I, 3, H, W]."""
    inputs: dict[str, Any] = {"pixel_values": pixels}
    patch = int(image["patch"])
    rows, columns = (length // patch for length in pixels.shape[2:])
    if image["row"]:
        merge, frames = int(image["row"]["merge"]), int(image["row"]["frames"])
        down, across = rows // merge, columns // merge
        cut = pixels.reshape(len(pixels), -1, down, merge, patch, across, merge, patch)
        cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(-1, pixels.shape[1], 1, patch, patch)
        return {
            # A picture is a still of that many frames.
            "hidden_states": cut.expand(-1, -1, frames, -1, -1).flatten(1),
            "grid_thw": torch.tensor([[1, rows, columns]] * len(pixels), device=pixels.device),
        }
    if image["inputs"] == "patches":
        cut = pixels.reshape(len(pixels), -1, rows, patch, columns, patch)
        inputs = {
            "pixel_values": cut.permute(0, 2, 4, 3, 5, 1).reshape(len(pixels), rows * columns, -1),
            "pixel_attention_mask": None,
            "spatial_shapes": torch.tensor([[rows, columns]] * len(pixels)),
        }
    elif image["inputs"] == "ordered":
        # A masked autoencoder sorts its patches by noise; rising noise keeps their order.
        noise = torch.arange(rows * columns, dtype=pixels.dtype, device=pixels.device)
        inputs["noise"] = noise.expand(len(pixels), -1)
    if image["interpolate"] and list(pixels.shape[2:]) != _own_size(tower):
        inputs["interpolate_pos_encoding"] = True
    return inputs


@contextmanager
def _positions(tower: Any, image: Mapping[str, Any], pixels: torch.Tensor) -> Iterator[None]:
    """A context in which a table of positions of one square is resized to the pictures' grid."""
    if image.get("table") is None or list(pixels.shape[2:]) == _own_size(tower):
        yield
        return
    grid = [length // int(image["patch"]) for length in pixels.shape[2:]]

    def resized(module: Any, taken: Any, found: torch.Tensor) -> torch.Tensor:
        """What the table looked up, in the grid."""
        del module, taken
        side = math.isqrt(found.shape[1])
        plane = found[0].reshape(side, side, -1).permute(2, 0, 1)[None]
        # The antialiased kernel has no version for half precision on the CPU.
        made = interpolate(plane.float(), size=grid, mode="bicubic", antialias=True)
        return made.flatten(2).transpose(1, 2).to(found.dtype)

    handle = tower.get_submodule(image["table"]).register_forward_hook(resized)
    try:
        yield
    finally:
        handle.remove()


def _own_size(tower: Any) -> list[int]:
    """Height and width that the vision model's config gives."""
    size = getattr(tower.config, "image_size", None)
    return list(size) if isinstance(size, list | tuple) else [size or 0] * 2


def _rows(states: torch.Tensor, image: Mapping[str, Any], count: int) -> torch.Tensor:
    """Tokens float[I, P, C], row by row, of a map float[I, C, rows, columns], or of the states
    float[I*P, C] of a model that takes patches in a row of its own order; tokens as they are.
    """
    if image["row"]:
        order = torch.tensor(image["row"]["tokens"], device=states.device)
        return states.reshape(count, -1, states.shape[-1]).index_select(1, order)
    return states.flatten(2).transpose(1, 2) if states.ndim == 4 else states
