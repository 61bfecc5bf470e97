"""The batch: packs of samples as tensors, and the segments that keep samples apart.

Shapes use one notation everywhere, `dtype[axes]`, with B rows, T text positions, I tiles, P
patches, V visual tokens after merging, D width, C channels, H W pixels, S segments.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

Grids: TypeAlias = tuple[tuple[int, int], ...]
"""Rows and columns of tiles, image by image."""

IGNORED = -100
"""Label of positions without loss (the default `ignore_index` of torch's cross-entropy)."""


@dataclass(frozen=True)
class Batch:
    """B packs of up to T tokens; what one forward pass consumes."""

    tokens: torch.Tensor
    """int64[B, T]: token ids; one placeholder per visual token; padding at the end of a row."""
    positions: torch.Tensor
    """int64[B, T]: position ids, starting at 0 in every sample."""
    labels: torch.Tensor
    """int64[B, T]: the token to predict after each position, or -100."""
    # int32: kernels for rows of several sequences take their starts in no other type.
    boundaries: torch.Tensor
    """int32[S + 1]: where segments start in the flattened B*T positions, and B*T; a row's
    padding is a segment."""
    # A number, not a tensor: read off the device it would make every step wait for it.
    longest: int
    """Length of the longest segment, in tokens."""
    tiles: torch.Tensor
    """uint8[I, C, H, W]: every tile of the batch in placeholder order."""
    image_of_tile: torch.Tensor
    """int64[I]: index, within the batch, of the image each tile was cut from."""
    image_ids: torch.Tensor
    """int64[M]: a hash of each image's tiles, so equal for equal images; 0 without a
    caption."""
    caption_of: torch.Tensor
    """int64[B, T]: index of the image that the token's caption describes, or -1 outside
    captions."""
    sample_ids: tuple[str, ...]
    """Ids of the packed samples, in order."""
    padding: int
    """Number of padding tokens."""
    filler: torch.Tensor | None = None
    """bool[B, T]: which positions are padding; None where that is not known."""
    features: torch.Tensor | None = None
    """float[I, P, D]: features of the tiles where they are known; None runs the tower."""
    grids: Grids | None = None
    """Rows and columns of tiles of each image in native resolution; None where every tile is a
    picture by itself. Numbers, not a tensor: they are shapes, which no pass should wait for."""
    seed: int | None = None
    """Seed of dropout in its forward passes, so that a second pass repeats the first; None: the
    global generator goes on."""

    @property
    def answer_tokens(self) -> int:
        """Number of tokens with loss."""
        return int((self.labels != IGNORED).sum())

    @property
    def captioned_images(self) -> int:
        """Number of images that have a caption, so of contrastive pairs."""
        captioned = self.caption_of[self.caption_of >= 0]
        return int(torch.unique(captioned).numel())

    @property
    def pictures(self) -> tuple[int, ...]:
        """Tiles of each picture that the tower sees by itself: an image in native resolution,
        otherwise a tile.
        """
        if self.grids is None:
            return (1,) * len(self.tiles)
        return tuple(rows * columns for rows, columns in self.grids)

    def to(self, device: torch.device) -> Batch:
        """The same batch with every tensor on `device`."""
        # Only from pinned memory does the copy run beside the computation.
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from which copies to a GPU run beside the
        computation.
        """
        return self._mapped(torch.Tensor.pin_memory)

    def _mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        changed: dict[str, Any] = {
            field.name: change(value)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        return dataclasses.replace(self, **changed)


@dataclass(frozen=True)
class Step:
    """What one optimizer step of this rank consumes."""

    batches: tuple[Batch, ...]
    """Micro-batches, accumulated exactly: their losses are sums divided by the step's global
    counts."""
    cursor: dict[str, object]
    """JSON state of the loader *after* this step; loading it continues with the next one."""
