"""The tower: any Hugging Face vision model, from uint8 tiles to patch features in row-major order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from sailvit.core.errors import ModelError
from sailvit.models.families import FAMILIES, Family


@dataclass(frozen=True)
class Preprocessing:
    """What the tower expects of its pixels."""

    size: int
    """Height and width of a tile, in pixels."""
    mean: tuple[float, float, float]
    """Channel means, for pixels in 0..1."""
    std: tuple[float, float, float]
    """Channel standard deviations, for pixels in 0..1."""


class Tower(nn.Module):
    """A vision model seen as `tiles -> patch features`; the model itself stays what `from_pretrained` made."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, model: PreTrainedModel, preprocessing: Preprocessing, feature_layer: int = -1
    ) -> None:
        super().__init__()
        self.model = model
        self.preprocessing = preprocessing
        self.feature_layer = feature_layer
        self.patch = _patch_size(model.config)
        self.side = preprocessing.size // self.patch
        for name in ("mean", "std"):
            channels = torch.tensor(getattr(preprocessing, name)).reshape(1, -1, 1, 1) * 255
            self.register_buffer(name, channels, persistent=False)
        listed = FAMILIES.get(model.config.model_type)
        self.family = listed or Family()
        self.prefix, self.idle = self._probe(counted=listed is None)

    @property
    def width(self) -> int:
        """D of the features."""
        return int(self.model.config.hidden_size)

    @property
    def patches(self) -> int:
        """Patch tokens of one tile."""
        return self.side**2

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Patch features float[I, P, D], of shape (tiles, patches, width), of tiles uint8[I, C, H, W].

        CLS and register tokens are left out.
        """
        pixels = (tiles.to(self.mean.dtype) - self.mean) / self.std
        return self._tokens(pixels, self.model)[:, self.prefix :]

    def _tokens(self, pixels: torch.Tensor, model: Callable[..., Any]) -> torch.Tensor:
        inputs: dict[str, Any] = self.family.pixels(pixels, self.patch)
        if self.family.interpolates and self.preprocessing.size != self.model.config.image_size:
            inputs["interpolate_pos_encoding"] = True
        if self.feature_layer == -1:
            tokens: torch.Tensor = model(**inputs).last_hidden_state
        else:
            tokens = model(**inputs, output_hidden_states=True).hidden_states[self.feature_layer]
        return tokens

    @torch.enable_grad()
    def _probe(self, *, counted: bool) -> tuple[int, frozenset[str]]:
        """Prefix length and the names of parameters that features do not depend on, from a pass without data.

        On the meta device, so it costs milliseconds for any size. Pooling heads, mask tokens and norms after the chosen
        layer get no gradient here, nor would they in training: they are kept as they are and never planned to train.
        """
        self._check_size()
        size = self.preprocessing.size
        weights = {
            name: torch.empty_like(weight, device="meta", requires_grad=True)
            for name, weight in self.model.named_parameters()
        }
        state = {**weights, **{name: b.to("meta") for name, b in self.model.named_buffers()}}
        pixels = torch.empty(1, len(self.preprocessing.mean), size, size, device="meta")
        tokens = self._tokens(
            pixels, lambda **inputs: torch.func.functional_call(self.model, state, (), inputs)
        )
        found = tokens.shape[1]
        prefix = found - self.patches if counted else self.family.prefix(self.model.config)
        if found != prefix + self.patches or prefix < 0:
            raise ModelError(
                f"{self.model.config.model_type} gives {found} tokens for a {size} px tile; expected {prefix} CLS and"
                f" register tokens + {self.side} x {self.side} patches = {prefix + self.patches};"
                " set model.image.size to the tower's own size, or correct its row in models/families.py"
            )
        used = torch.autograd.grad(
            tokens[:, prefix:].sum(), list(weights.values()), allow_unused=True
        )
        return prefix, frozenset(
            name for name, grad in zip(weights, used, strict=True) if grad is None
        )

    def _check_size(self) -> None:
        size, model = self.preprocessing.size, self.model.config
        if size % self.patch:
            raise ModelError(
                f"tile size {size} px is not a multiple of the tower's patch size {self.patch} px;"
                f" set model.image.size to {self.side * self.patch} or {(self.side + 1) * self.patch}"
            )
        if self.family.fixed_size and size != model.image_size:
            raise ModelError(
                f"{model.model_type} has position embeddings for {model.image_size} px only, but tiles are {size} px;"
                f" set model.image.size to {model.image_size}"
            )


def _patch_size(config: Any) -> int:
    patch = getattr(config, "patch_size", None)
    if patch is None:
        raise ModelError(f"{config.model_type} has no patch_size; choose a tower that is a ViT")
    height, width = (patch, patch) if isinstance(patch, int) else patch
    if height != width:
        raise ModelError(
            f"{config.model_type} has patches of {height} x {width} px; only square patches are supported"
        )
    return int(height)
