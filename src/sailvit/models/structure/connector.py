"""The connector: merges neighbouring patches and maps them into the language's embedding space."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class MergeConnectorConfig(PretrainedConfig):
    """What a connector folder's config.json holds."""

    model_type = "sailvit_connector"

    tower_width: int = 0
    """D of the tower's features."""
    language_width: int = 0
    """D of the language's input embeddings."""
    hidden: int = 0
    """Width between the two linear layers."""
    merge: int = 2
    """Patches merged per side."""


class Connector(PreTrainedModel):
    """Pixel-unshuffle, LayerNorm, Linear, GELU, Linear."""

    config_class = MergeConnectorConfig
    config: MergeConnectorConfig
    base_model_prefix = "connector"
    main_input_name = "features"

    def __init__(self, config: MergeConnectorConfig) -> None:
        super().__init__(config)
        merged = config.tower_width * config.merge**2
        self.norm = nn.LayerNorm(merged)
        self.up = nn.Linear(merged, config.hidden)
        self.down = nn.Linear(config.hidden, config.language_width)
        self.post_init()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Visual tokens float[I, V, D], of shape (tiles, tokens, language width), of patch
        features float[I, P, D].
        """
        merged = pixel_unshuffle(features, self.config.merge)
        down: torch.Tensor = self.down(nn.functional.gelu(self.up(self.norm(merged))))
        return down


def pixel_unshuffle(features: torch.Tensor, merge: int) -> torch.Tensor:
    """float[I, P / merge^2, merge^2 * D] from float[I, P, D]: each merge x merge neighbourhood
    side by side.
    """
    tiles, patches, width = features.shape
    side = round(patches**0.5)
    grid = features.reshape(tiles, side // merge, merge, side // merge, merge, width)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(tiles, patches // merge**2, merge**2 * width)
