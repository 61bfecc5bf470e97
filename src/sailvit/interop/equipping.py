"""Another tower in the place of a multimodal model's own, and what that means for the connector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sailvit.core.atomic import set_usual_mode
from sailvit.core.recipe import ModelConfig
from sailvit.models.loading.folders import prove_tower
from sailvit.models.loading.parts import load_tower
from sailvit.models.towers.preprocessing import save_preprocessor
from sailvit.models.towers.tower import Tower

MERGES = (1, 2, 3, 4)
"""Merges that a renewed connector may have where its own does not divide the new grid."""


@dataclass(frozen=True)
class LoadedTower:
    """A tower, and its preprocessor config."""

    tower: Tower
    """The tower, in fp32 on the CPU."""
    preprocessor: dict[str, Any]
    """What stands beside its weights."""


def read_tower(source: str) -> LoadedTower:
    """The tower of a folder or hub id, with its own preprocessor config."""
    # Nothing of the language is read for that.
    tower, preprocessor = load_tower(ModelConfig(tower=source, language="-"))
    return LoadedTower(tower, preprocessor)


def put_weights(own: Tower, other: Tower) -> str:
    """Give the model of `own` the weights of `other`; returns why they do not fit, and empty
    where they do.

    They fit where both are one family, every weight that features depend on has its place, and
    the model of `own` then gives features that are equal bit by bit: configs differ in more than
    shapes tell, such as heads and norms.
    """
    if reason := _other_shape(own, other):
        return reason
    own.model.load_state_dict(other.model.state_dict(), strict=False)
    noise = _noise(other.preprocessing.size)
    with torch.no_grad():
        expected, found = other.eval()(noise), other.around(own.model).eval()(noise)
    if torch.equal(expected, found):
        return ""
    return (
        "with its weights the model's own tower gives other features (largest difference"
        f" {(expected - found).abs().max().item():.2g}), as their configs differ"
    )


def _other_shape(own: Tower, other: Tower) -> str:
    """In what family, grid or weights differ; empty where they do not."""
    kinds = [tower.model.config.model_type for tower in (own, other)]
    if kinds[0] != kinds[1]:
        return f"it is of type {kinds[1]}, and the model's own tower of type {kinds[0]}"
    grids = [f"{t.side} x {t.side} patches of {t.patch} px" for t in (own, other)]
    if grids[0] != grids[1]:
        return f"it has {grids[1]}, and the model's own tower {grids[0]}"
    shapes, wanted = _shapes(own.model), _shapes(other.model)
    for name in sorted(wanted.keys() - other.idle):
        if shapes.get(name) != wanted[name]:
            has = f"has {list(shapes[name])}" if name in shapes else "lacks it"
            return f"its {name} is {list(wanted[name])}, and the model's own tower {has}"
    return ""


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _noise(size: int) -> torch.Tensor:
    """A tile of noise uint8[1, 3, H, W]."""
    drawn = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8, generator=drawn)


def write_tower(held: LoadedTower, folder: Path) -> None:
    """Write a tower as transformers' own class and its preprocessor config, and read it back.

    Raises:
        ModelError: the folder gives other features than the tower.
    """
    held.tower.model.save_pretrained(folder)
    set_usual_mode(folder)
    save_preprocessor(held.preprocessor, held.tower, folder)
    prove_tower(held.tower, folder)


def renewed_merge(side: int, merge: int) -> int:
    """Patches per side that a renewed connector merges on a grid of `side` x `side`: as many as
    before where the grid allows it, else more, else fewer.
    """
    fits = [n for n in MERGES if side % n == 0]
    more = [n for n in fits if n >= merge]
    return merge if side % merge == 0 else (more or fits[-1:])[0]
