"""Connectors: each merges neighbouring patches and maps them into the language's embedding space.

A new one is a subclass of `Connector` here and its row in `CONNECTORS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN

from sailvit.core.errors import ModelError
from sailvit.core.recipe import ConnectorKind


class MergeConnectorConfig(PretrainedConfig):
    """What a connector folder's config.json holds, of every kind."""

    model_type = "sailvit_connector"

    kind: str = "merge_mlp"
    """Which of `CONNECTORS` it is; folders older than the others do not say."""
    tower_width: int = 0
    """D of the tower's features."""
    language_width: int = 0
    """D of the language's input embeddings."""
    hidden: int = 0
    """Width between the two linear layers."""
    merge: int = 2
    """Patches merged per side."""
    activation: str = "gelu"
    """transformers' name of the function between the two linear layers."""
    bias: bool = True
    """Whether the two linear layers have a bias."""
    eps: float = 1e-5
    """What the norm adds to the variance."""
    column_major: bool = False
    """Whether visual tokens go column by column, as in InternVL's `ps_version: v1`."""


class Connector(PreTrainedModel):
    """What all kinds share: the order of merging, and the two linear layers at the end."""

    config_class = MergeConnectorConfig
    config: MergeConnectorConfig
    base_model_prefix = "connector"
    main_input_name = "features"
    facts: ClassVar[dict[str, str | bool | float]] = {}
    """The config's activation, bias and eps of a fresh connector, where they are not the usual
    ones."""

    def __init__(self, config: MergeConnectorConfig) -> None:
        super().__init__(config)
        self.merged_width = config.tower_width * config.merge**2
        self.activate = ACT2FN[config.activation]
        self.add_layers(config)
        self.post_init()

    def add_layers(self, config: MergeConnectorConfig) -> None:
        """Make the layers, in the order in which they run."""
        raise NotImplementedError

    def add_mlp(self, width: int, inner: int | None = None) -> None:
        """Make the two linear layers for inputs of `width`; `inner` is the first one's output,
        where it is not the width between them.
        """
        config = self.config
        self.up = nn.Linear(width, inner or config.hidden, bias=config.bias)
        self.down = nn.Linear(config.hidden, config.language_width, bias=config.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Visual tokens float[I, V, D], of shape (tiles, tokens, language width), of patch
        features float[I, P, D].
        """
        merged = pixel_unshuffle(self.before(features), self.config.merge)
        visual = self.project(merged)
        return by_columns(visual) if self.config.column_major else visual

    def before(self, features: torch.Tensor) -> torch.Tensor:
        """What is merged, float[I, P, D]: the features float[I, P, D] themselves."""
        return features

    def project(self, merged: torch.Tensor) -> torch.Tensor:
        """Visual tokens float[I, V, D] of merged patches float[I, V, merge^2 * D]."""
        projected: torch.Tensor = self.down(self.activate(self.up(merged)))
        return projected


class MlpConnector(Connector):
    """Pixel-unshuffle, Linear, GELU, Linear: with merge 1 LLaVA's."""

    def add_layers(self, config: MergeConnectorConfig) -> None:
        """The two linear layers alone."""
        del config
        self.add_mlp(self.merged_width)


class MergeMlpConnector(Connector):
    """Pixel-unshuffle, LayerNorm, Linear, GELU, Linear: the paper's, InternVL's and LFM2-VL's."""

    def add_layers(self, config: MergeConnectorConfig) -> None:
        """A norm of merged patches, and the two linear layers."""
        self.norm = nn.LayerNorm(self.merged_width, eps=config.eps)
        self.add_mlp(self.merged_width)

    def project(self, merged: torch.Tensor) -> torch.Tensor:
        """Visual tokens float[I, V, D] of merged patches float[I, V, merge^2 * D]."""
        return super().project(self.norm(merged))


class SwigluConnector(MergeMlpConnector):
    """Pixel-unshuffle, LayerNorm, Linear to twice the width, SwiGLU, Linear: AyaVision's."""

    facts: ClassVar[dict[str, str | bool | float]] = {"activation": "silu", "eps": 1e-6}

    def add_layers(self, config: MergeConnectorConfig) -> None:
        """A norm of merged patches, and two linear layers of which the first also gives gates."""
        self.norm = nn.LayerNorm(self.merged_width, eps=config.eps)
        self.add_mlp(self.merged_width, 2 * config.hidden)

    def project(self, merged: torch.Tensor) -> torch.Tensor:
        """Visual tokens float[I, V, D] of merged patches float[I, V, merge^2 * D]."""
        # AyaVision's order: values first, gates second.
        values, gates = self.up(self.norm(merged)).chunk(2, dim=-1)
        projected: torch.Tensor = self.down(self.activate(gates) * values)
        return projected


class NormMergeMlpConnector(Connector):
    """RMSNorm of every patch, a linear merge to the tower's width, Linear, GELU, Linear:
    Mistral3's.
    """

    facts: ClassVar[dict[str, str | bool | float]] = {"bias": False}

    def add_layers(self, config: MergeConnectorConfig) -> None:
        """A norm of patches, the matrix that merges them, and the two linear layers."""
        self.norm = nn.RMSNorm(config.tower_width, eps=config.eps)
        self.merge = nn.Linear(self.merged_width, config.tower_width, bias=False)
        self.add_mlp(config.tower_width)

    def before(self, features: torch.Tensor) -> torch.Tensor:
        """Normed features float[I, P, D] of features float[I, P, D]."""
        # torch warns where the two types differ, as they do under autocast.
        normed: torch.Tensor = self.norm(features.to(self.norm.weight.dtype))
        return normed

    def project(self, merged: torch.Tensor) -> torch.Tensor:
        """Visual tokens float[I, V, D] of merged patches float[I, V, merge^2 * D]."""
        # Mistral3 unfolds channel by channel; its weights then fit without being rearranged.
        patches = merged.reshape(*merged.shape[:-1], -1, self.config.tower_width)
        return super().project(self.merge(patches.transpose(-1, -2).flatten(-2)))


CONNECTORS: dict[str, type[Connector]] = {
    "merge_mlp": MergeMlpConnector,
    "mlp": MlpConnector,
    "swiglu": SwigluConnector,
    "norm_merge_mlp": NormMergeMlpConnector,
}
"""By `model.connector.kind`, which the same name in a connector folder's config.json is."""


def fresh_connector(
    kind: ConnectorKind, *, tower_width: int, language_width: int, merge: int, hidden: int
) -> Connector:
    """A connector with new weights, drawn from torch's generator."""
    made = CONNECTORS[kind]
    config = MergeConnectorConfig(
        kind=kind,
        tower_width=tower_width,
        language_width=language_width,
        merge=merge,
        hidden=hidden,
        **made.facts,
    )
    return made(config)


def read_config(folder: str | Path) -> MergeConnectorConfig:
    """What a connector's folder says about it.

    Raises:
        ModelError: it is of a kind that this version does not have.
    """
    config: MergeConnectorConfig = MergeConnectorConfig.from_pretrained(folder)
    if config.kind not in CONNECTORS:
        raise ModelError(
            f"the connector in {folder} is of kind {config.kind!r}; this version of sailvit has"
            f" {', '.join(CONNECTORS)}: load it with the version that wrote it"
        )
    return config


def read_connector(folder: str | Path) -> Connector:
    """The connector that was saved in a folder, in fp32.

    Raises:
        ModelError: it is of a kind that this version does not have.
    """
    connector: Connector = CONNECTORS[read_config(folder).kind].from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True
    )
    return connector


def pixel_unshuffle(features: torch.Tensor, merge: int) -> torch.Tensor:
    """float[I, P / merge^2, merge^2 * D] from float[I, P, D]: each merge x merge neighbourhood
    side by side.
    """
    tiles, patches, width = features.shape
    side = round(patches**0.5)
    grid = features.reshape(tiles, side // merge, merge, side // merge, merge, width)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(tiles, patches // merge**2, merge**2 * width)


def by_columns(visual: torch.Tensor) -> torch.Tensor:
    """Visual tokens float[I, V, D] of square tiles column by column, of float[I, V, D] row by
    row.
    """
    side = round(visual.shape[1] ** 0.5)
    grid = visual.reshape(visual.shape[0], side, side, -1)
    return grid.transpose(1, 2).reshape(visual.shape)
