"""Captioned images and their captions as rows, for objectives that compare the two."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import normalize

from sailvit.core.batch import Batch


def captioned(batch: Batch) -> torch.Tensor:
    """int64[n]: which images of the batch have a caption, in order."""
    found: torch.Tensor = torch.unique(batch.caption_of[batch.caption_of >= 0])
    return found


def image_rows(visual: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Unit vectors float[n, D] of the captioned images: the mean of their tiles' visual tokens,
    float[I, V, D].
    """
    tiles = visual.float().mean(dim=1)
    count = int(batch.image_of_tile.max()) + 1 if len(tiles) else 0
    # A sum serves as well as a mean: only its direction is used.
    images = tiles.new_zeros(count, tiles.shape[1]).index_add(0, batch.image_of_tile, tiles)
    return normalize(images[captioned(batch)], dim=-1)


def caption_rows(embed: Callable[[torch.Tensor], torch.Tensor], batch: Batch) -> torch.Tensor:
    """Unit vectors float[n, D] of the captions, in the same order: the mean of what `embed` makes
    of their tokens, float[N, D] of int64[N].
    """
    owner = batch.caption_of.flatten()
    ids, rows = torch.unique(owner[owner >= 0], return_inverse=True)
    embedded = embed(batch.tokens.flatten()[owner >= 0]).float()
    captions = embedded.new_zeros(len(ids), embedded.shape[1]).index_add(0, rows, embedded)
    return normalize(captions, dim=-1)
