"""The one table of vision tower families: what precedes the patch tokens, and how pixels go in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

Pixels = Callable[[torch.Tensor, int], dict[str, torch.Tensor | None]]
Raster = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


def plain_pixels(pixels: torch.Tensor, patch: int) -> dict[str, torch.Tensor | None]:
    """The tower's inputs for pixels float[I, C, H, W]: the pixels themselves."""
    del patch
    return {"pixel_values": pixels}


def same_order(states: torch.Tensor, pixels: torch.Tensor, patch: int) -> torch.Tensor:
    """The model's states as its tokens: they are in order already."""
    del pixels, patch
    return states


def patch_pixels(pixels: torch.Tensor, patch: int) -> dict[str, torch.Tensor | None]:
    """The tower's inputs for pixels float[I, C, H, W]: flattened patches float[I, P,
    patch*patch*C] and their grid.
    """
    tiles, channels, height, width = pixels.shape
    rows, columns = height // patch, width // patch
    patches = pixels.reshape(tiles, channels, rows, patch, columns, patch)
    patches = patches.permute(0, 2, 4, 3, 5, 1).reshape(tiles, rows * columns, -1)
    return {
        "pixel_values": patches,
        "pixel_attention_mask": None,  # every patch of a tile is real
        # On the CPU, because the tower reads these sizes back as Python numbers.
        "spatial_shapes": torch.tensor([[rows, columns]] * tiles),
    }


def ordered_pixels(pixels: torch.Tensor, patch: int) -> dict[str, torch.Tensor | None]:
    """The tower's inputs for pixels float[I, C, H, W]: these, and rising `noise` float[I, P], by
    which a masked autoencoder sorts its patches instead of by chance.
    """
    tiles, _, height, width = pixels.shape
    count = (height // patch) * (width // patch)
    noise = torch.arange(count, dtype=pixels.dtype, device=pixels.device)
    return {"pixel_values": pixels, "noise": noise.expand(tiles, -1)}


@dataclass(frozen=True)
class Family:
    """What differs between vision towers, and nothing else."""

    example: str = ""
    """A checkpoint of the family."""
    prefix: Callable[[Any], int] = lambda config: 0
    """Number of CLS and register tokens before the patch tokens, from the tower's config."""
    pixels: Pixels = plain_pixels
    """How normalised pixels become the tower's keyword inputs."""
    raster: Raster = same_order
    """How states that the model gives for these pixels become tokens row by row."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the config that features need, whatever the checkpoint's own says."""
    note: str = ""
    """What whoever loads the saved tower without sailvit has to know."""


def _cls(config: Any) -> int:
    del config
    return 1


def _cls_and_registers(config: Any) -> int:
    return 1 + int(config.num_register_tokens)


FAMILIES: dict[str, Family] = {
    "aimv2_vision_model": Family("apple/aimv2-large-patch14-448"),
    "clip_vision_model": Family("openai/clip-vit-large-patch14-336", prefix=_cls),
    "dinov2": Family("facebook/dinov2-base", prefix=_cls),
    "dinov2_with_registers": Family(
        "facebook/dinov2-with-registers-base", prefix=_cls_and_registers
    ),
    "dinov3_vit": Family("facebook/dinov3-vitb16-pretrain-lvd1689m", prefix=_cls_and_registers),
    "internvl_vision": Family("OpenGVLab/InternVL3-1B-hf", prefix=_cls),
    "siglip_vision_model": Family("google/siglip-so400m-patch14-384"),
    "siglip2_vision_model": Family("google/siglip2-base-patch16-naflex", pixels=patch_pixels),
    "vit": Family("google/vit-base-patch16-224", prefix=_cls),
    "vit_mae": Family(
        "facebook/vit-mae-base",
        prefix=_cls,
        pixels=ordered_pixels,
        settings={"mask_ratio": 0.0},
        note=(
            "the tower (vit_mae) masks nothing: mask_ratio is 0 in its saved config; who runs it"
            " without sailvit passes noise=torch.arange(patches)[None], or it shuffles its patches"
        ),
    ),
}
"""By `config.model_type`; one that is not listed is taken as plain pixels, its CLS tokens found
by counting."""
