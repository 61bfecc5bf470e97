"""The layers of a part from its features down: which blocks train, and at which share of the
rate.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sailvit.core.errors import RecipeError
from sailvit.models.blocks import find_blocks


def from_block(module: nn.Module, names: list[str], blocks: int) -> list[str]:
    """Those of `names` in the last k blocks that hold any, and in the norms and heads after
    them.
    """
    used, stack = _used_blocks(module, names, "last_blocks")
    if blocks > len(used):
        idle = (
            f", of which the last {stack - len(used)} lie after feature_layer"
            if len(used) < stack
            else ""
        )
        raise RecipeError(
            f"last_blocks is {blocks}, but {type(module).__name__} has {stack} blocks{idle}"
        )
    first = next(index for index, name in enumerate(names) if name.startswith(used[-blocks]))
    return names[first:]


def layer_shares(module: nn.Module, names: list[str], decay: float) -> dict[str, float]:
    """Share of the part's rate for each of `names`: 1 after the blocks, and times `decay` per
    layer below.

    As in BEiT and timm: the last of n blocks has decay, the first decay ** n, and what comes
    before it decay ** (n + 1). Blocks are counted back from the last that holds any of `names`,
    so a share does not depend on how many of them train.
    """
    used, _ = _used_blocks(module, names, "layer_decay")
    layers = [
        next((index for index, start in enumerate(used) if name.startswith(start)), None)
        for name in names
    ]
    first = next(place for place, layer in enumerate(layers) if layer is not None)
    below = {
        name: len(used) - layer
        for name, layer in zip(names, layers, strict=True)
        if layer is not None
    }
    below |= dict.fromkeys(names[:first], len(used) + 1)
    return {name: decay ** below.get(name, 0) for name in names}


def _used_blocks(module: nn.Module, names: Sequence[str], setting: str) -> tuple[list[str], int]:
    """Prefixes of the blocks that hold any of `names`; and the number of all blocks."""
    prefix, stack = find_blocks(module)
    if not stack:
        raise RecipeError(
            f"{setting} needs a part made of blocks; {type(module).__name__} has no list of blocks"
        )
    starts = [f"{prefix}.{index}." for index in range(len(stack))]
    return [start for start in starts if any(name.startswith(start) for name in names)], len(stack)
