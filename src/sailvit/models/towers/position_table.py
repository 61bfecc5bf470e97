"""Position tables of towers at other sizes than their config's: resized once at load, so that the
saved folder needs no flag, or for one grid of native resolution.
"""

from __future__ import annotations

import copy
import inspect
import math
from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate
from transformers import PreTrainedModel

from sailvit.models.guards.errors import FOREIGN


@torch.no_grad()
def at_size(model: PreTrainedModel, size: int) -> PreTrainedModel:
    """The model with its position table interpolated once to tiles of `size` px, and its config.

    The family's own code interpolates, as it would at every forward pass; a family without such
    code, such as AIMv2, is interpolated by `resized_table`. What is trained and saved afterwards
    is the new table, and `AutoModel` needs no flag to use it. A model that is of this size, that
    takes any size by itself, or whose tables are no plain ones comes back as it is.
    """
    known = getattr(model.config, "image_size", None)
    if not isinstance(known, int) or known == size:
        return model
    asks = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
    if not asks and _runs_at(model, size):
        return model
    config = copy.deepcopy(model.config)
    config.image_size = size
    held = model.state_dict()
    with torch.device("meta"):
        resized = type(model)(config)
    changed = [name for name, to in resized.state_dict().items() if to.shape != held[name].shape]
    if len(changed) != 1:
        return model
    name, to = changed[0], resized.state_dict()[changed[0]]
    table = _families_own(model, held[name], to, size) if asks else _bicubic(held[name], to)
    if table is None:
        return model
    return _filled(model, config, {**held, name: table.reshape(to.shape).contiguous()})


def _families_own(
    model: PreTrainedModel, table: torch.Tensor, to: torch.Tensor, size: int
) -> torch.Tensor | None:
    """The table as the family's own code interpolates it; None where there is no such code, or
    none for one picture.
    """
    embeddings: Any = next(
        (part for part in model.modules() if hasattr(part, "interpolate_pos_encoding")), None
    )
    if embeddings is None:
        return None
    # Of the new number of tokens: some families return the old table for the old one.
    tokens = table.new_zeros(1, *to.shape[-2:])
    try:
        made: torch.Tensor = embeddings.interpolate_pos_encoding(tokens, size, size)
    except FOREIGN:
        return None
    # Models for videos have more positions than one picture's.
    return made if made.numel() == to.numel() else None


def _bicubic(table: torch.Tensor, to: torch.Tensor) -> torch.Tensor | None:
    """The table in the shape of `to`; None where one has no row for each patch of a square."""
    if not (_is_square(table) and _is_square(to)):
        return None
    return resized_table(table, (math.isqrt(len(to)),) * 2)


def position_lookup(model: nn.Module, patches: int) -> str | None:
    """Name of the one embedding of `model` that has a row for each of its patches; None where
    there is none or several.
    """
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and module.num_embeddings == patches
    ]
    return found[0] if len(found) == 1 else None


def stretched(model: Any, table: nn.Module, grid: tuple[int, int], **inputs: Any) -> Any:
    """The model's output for these inputs, with what `table` looks up resized to a grid of rows
    and columns.
    """

    def resized(module: nn.Module, given: Any, found: torch.Tensor) -> torch.Tensor:
        """What the table looked up, in the grid."""
        del module, given
        return resized_table(found[0], grid)[None]

    handle = table.register_forward_hook(resized)
    try:
        return model(**inputs)
    finally:
        handle.remove()


def resized_table(table: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """float[P, D] of a grid of rows and columns, from float[N, D] of a square one: bicubic with
    antialias, as timm resamples absolute position embeddings.
    """
    side, width = math.isqrt(len(table)), table.shape[1]
    plane = table.reshape(side, side, width).permute(2, 0, 1)[None]
    # The antialiased kernel has no version for half precision on the CPU.
    made = interpolate(plane.float(), size=grid, mode="bicubic", antialias=True)
    return made[0].permute(1, 2, 0).reshape(-1, width).to(table.dtype)


def _is_square(table: torch.Tensor) -> bool:
    """Whether it has a row for each patch of a square."""
    return table.ndim == 2 and math.isqrt(len(table)) ** 2 == len(table)


def _runs_at(model: PreTrainedModel, size: int) -> bool:
    """Whether the model takes tiles of `size` px as it is; it is tried without weights."""
    try:
        with torch.device("meta"):
            made = type(model)(copy.deepcopy(model.config))
            made(pixel_values=torch.zeros(1, made.config.num_channels, size, size))
    except FOREIGN:
        return False
    return True


def _filled(
    model: PreTrainedModel, config: object, state: dict[str, torch.Tensor]
) -> PreTrainedModel:
    """A model of the same class and config, with these weights."""
    device = next(iter(state.values())).device
    with torch.random.fork_rng(devices=[]), torch.device(device):
        made: PreTrainedModel = type(model)(config)
    made.load_state_dict(state, assign=True)
    for name, weight in model.named_parameters():
        made.get_parameter(name).requires_grad_(weight.requires_grad)
    return made.train(model.training)
