"""The precision of a run whose recipe says `auto`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sailvit.core.ownership import manifest_of
from sailvit.distributed.processes import broadcast
from sailvit.models.measures.peak import faster_in_bf16

if TYPE_CHECKING:
    import torch

    from sailvit.core.recipe import Recipe
    from sailvit.core.run import RunFolder


def settled(recipe: Recipe, device: torch.device, folder: RunFolder | None = None) -> Recipe:
    """`recipe` with `auto` replaced by the faster precision, the same on every process.

    A run that is in `folder` keeps the precision that it was started with, on any device.
    """
    if recipe.precision != "auto":
        return recipe
    begun = manifest_of(folder.path).get("recipe") if folder else None
    known = begun.get("precision") if isinstance(begun, dict) else None
    # One process measures for all: near the limit two could come to different answers.
    taken = broadcast(known or ("bf16" if faster_in_bf16(device) else "fp32"))
    return recipe.model_copy(update={"precision": taken})


def precision_note(asked: Recipe, taken: Recipe) -> str | None:
    """A sentence where `auto` came out as fp32, which a user of GPUs would not expect."""
    if asked.precision != "auto" or taken.precision == "bf16":
        return None
    return "precision: fp32, as this device multiplies bf16 matrices no faster; `precision` sets it"
