"""Which of a tower's tokens a transformers class hands to its connector, as our tower gives them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModel

from sailvit.core.errors import ModelError
from sailvit.models.guards.errors import ForeignErrors
from sailvit.models.towers.tower import Preprocessing, Tower

RETURNED = "internvl"
"""The class whose layer -1 is what the tower returns; others take the blocks' states."""


@dataclass(frozen=True)
class Selection:
    """What the connector reads."""

    layers: tuple[int, ...] = (-1,)
    """Layers as a recipe's `model.feature_layer` names them."""
    norm: bool | None = None
    """The recipe's `model.feature_norm`."""
    prefix: int = 0
    """Tokens before the patches."""
    reason: str = ""
    """Why it cannot be said; empty where it can."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a recipe's model section."""
        layer = self.layers[0] if len(self.layers) == 1 else list(self.layers)
        norm = {} if self.norm is None else {"feature_norm": self.norm}
        return {"feature_layer": layer, **norm}


def select(config: Any) -> Selection:
    """What a class's config selects."""
    vision = config.vision_config
    given = getattr(config, "vision_feature_layer", -1)
    layers = (given,) if isinstance(given, int) else tuple(given)
    chosen = Selection(layers, _norm(config, layers))
    if not hasattr(config, "vision_feature_select_strategy") and config.model_type != "vipllava":
        return chosen
    try:
        prefix = _prefix(vision)
    except ModelError as error:
        return Selection(reason=f"its tower does not run on tiles here: {error}")
    strategy = getattr(config, "vision_feature_select_strategy", "default")
    if (strategy == "default") != (prefix == 1):
        return Selection(
            reason=f"vision_feature_select_strategy is {strategy!r}, and {vision.model_type} has"
            f" {prefix} tokens before its patches, so it reads other tokens than the patches"
        )
    return Selection(layers, chosen.norm, prefix)


def tile_side(vision: Any) -> int:
    """Height and width of a tower's tiles, in pixels."""
    size = getattr(vision, "image_size", None)
    if size is None:
        # SigLIP 2 knows its number of patches instead.
        return int(round(vision.num_patches**0.5) * vision.patch_size)
    return int(size[0] if isinstance(size, list | tuple) else size)


def _norm(config: Any, layers: tuple[int, ...]) -> bool | None:
    """False where a class reads the last block's state before the tower's final norm."""
    reads_last = {-1, int(config.vision_config.num_hidden_layers)} & set(layers)
    if (
        not reads_last
        or config.model_type == RETURNED
        or not hasattr(config, "vision_feature_layer")
    ):
        return None
    return None if _is_normed(config.vision_config) else False


def _is_normed(vision: Any) -> bool:
    """Whether the last of a tower's `hidden_states` is what it returns, found by running one
    block of it with random weights: families differ, and versions of transformers as well.
    """
    small = copy.deepcopy(vision)
    small.num_hidden_layers = 1
    side = tile_side(vision)
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with (
        ForeignErrors(f"the tower ({vision.model_type}) does not run"),
        torch.random.fork_rng(devices=[]),
        torch.no_grad(),
    ):
        model = AutoModel.from_config(small).eval()
        tower = Tower(model, Preprocessing(side, (0.5,) * 3, (0.5,) * 3))
        inputs = tower.family.pixels(pixels, tower.patch)
        found = model(**inputs, output_hidden_states=True)
    return torch.equal(found.hidden_states[-1], found.last_hidden_state)


def _prefix(vision: Any) -> int:
    """Tokens before the patches of a tower, counted."""
    with torch.device("meta"):
        model = AutoModel.from_config(vision)
    return Tower(model, Preprocessing(tile_side(vision), (0.5,) * 3, (0.5,) * 3)).prefix
