"""A pack's samples, read back from the batch, with what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sailvit.core.batch import IGNORED, Batch
from sailvit.core.layout import VisualLayout
from sailvit.core.records import ImageLike
from sailvit.core.tiles import joined
from sailvit.data.processing.images import image_size, tile_grid
from sailvit.data.processing.text import FastTokenizer
from sailvit.dataprep.inspect.pictures import Album
from sailvit.dataprep.inspect.tokens import chips

Ids = NDArray[np.int64]
"""int64[T]."""


@dataclass(frozen=True)
class Segment:
    """One sample of a batch of one pack."""

    id: str
    """`source/record id`."""
    start: int
    """Position of its first token in the pack."""
    tokens: Ids
    """int64[T]: token ids."""
    labels: Ids
    """int64[T]: the token to predict at each position, or -100."""
    positions: Ids
    """int64[T]: position ids."""
    visual: NDArray[np.bool_]
    """bool[T]: which tokens are placeholders of images."""
    images: tuple[torch.Tensor, ...]
    """The tiles uint8[I, C, H, W] of each image."""
    tokens_per_tile: int
    """Placeholders of one tile."""
    pair: bool
    """Whether its answer and its image are a contrastive pair."""
    native: bool = False
    """Whether images keep their aspect ratio, so that a tile is one visual token."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def trained(self) -> NDArray[np.bool_]:
        """bool[T]: which tokens are learnt: those that the position before predicts."""
        return np.concatenate([[False], self.labels[:-1] != IGNORED])

    @property
    def tile_count(self) -> int:
        """Number of tiles of all images."""
        return sum(map(len, self.images))

    def problems(self) -> list[str]:
        """What is wrong with the sample: each problem is a bug, and a reason not to train."""
        learnt, expected = self.trained, self.tile_count * self.tokens_per_tile
        # These are read off the finished batch, not off the code that packed it.
        found = {
            "nothing is trained on": not learnt.any(),
            "a label is not the next token": bool(
                np.any(self.labels[:-1][learnt[1:]] != self.tokens[1:][learnt[1:]])
            ),
            "a label leads into the next sample": bool(self.labels[-1] != IGNORED),
            "image tokens are trained on": bool((learnt & self.visual).any()),
            f"{self.visual.sum()} image tokens for {self.tile_count} tiles of {self.tokens_per_tile}": bool(
                self.visual.sum() != expected
            ),
            "position ids do not start at 0": bool(np.any(self.positions != np.arange(len(self)))),
        }
        return [text for text, wrong in found.items() if wrong]

    def stretches(self) -> list[dict[str, Any]]:
        """Runs of image, trained and other tokens: kind, first position in the pack, length."""
        names = np.where(self.visual, "image", np.where(self.trained, "trained", "given"))
        made, at = [], self.start
        for name, group in groupby(names.tolist()):
            length = len(list(group))
            made.append({"kind": name, "at": at, "tokens": length})
            at += length
        return made

    def pieces(
        self, tokenizer: FastTokenizer, album: Album, grids: Sequence[tuple[int, int]]
    ) -> list[dict[str, Any]]:
        """The sample in reading order: text as chips, and images as rows of tiles."""
        made: list[dict[str, Any]] = []
        # One iterator over the whole sample, as placeholders do not say whose they are.
        images = zip(self.images, grids, strict=True)
        at = 0
        while at < len(self):
            if self.visual[at] and (image := next(images, None)) is not None:
                tiles, (columns, rows) = image
                # By the tiles and not by the run of placeholders: two images may touch.
                end = min(len(self), at + len(tiles) * self.tokens_per_tile)
                if self.native:
                    tiles, shown = joined(tiles, (rows, columns)), (1, 1)
                else:
                    shown = (columns, rows)
                pictures = [album.add(tile) for tile in tiles]
                cells = shown[0] * shown[1]
                piece = {
                    "columns": shown[0],
                    "cells": pictures[:cells],
                    "whole": pictures[cells:],
                    "grid": [columns, rows] if self.native else None,
                    "at": at,
                    "tokens": end - at,
                }
            else:
                # The next placeholder, or the end, where a True is appended: argmax gives the
                # first.
                end = at + 1 + int(np.argmax(np.append(self.visual[at + 1 :], True)))
                text = chips(
                    tokenizer, self.tokens[at:end].tolist(), self.trained[at:end].tolist(), start=at
                )
                piece = {"chips": text}
            made.append(piece)
            at = end
        return made

    def grids(self, images: Sequence[ImageLike], layout: VisualLayout) -> list[tuple[int, int]]:
        """Columns and rows of tiles that each image was cut into."""
        shown = images[: len(self.images)]
        return [
            tile_grid(*image_size(image), layout) if layout.most_tiles > 1 else (1, 1)
            for image in shown
        ]


def segments(batch: Batch, count: int, layout: VisualLayout) -> list[Segment]:
    """The first `count` segments of a batch of one pack; the segment after them is padding."""
    bounds = batch.boundaries.tolist()
    tokens, labels, positions, caption_of = (
        field.reshape(-1).numpy()
        for field in (batch.tokens, batch.labels, batch.positions, batch.caption_of)
    )
    images = _images(batch)
    made = []
    for name, start, end in zip(
        batch.sample_ids, bounds[:count], bounds[1 : count + 1], strict=True
    ):
        visual = tokens[start:end] == layout.placeholder_id
        shown = _taken(images, int(visual.sum()), layout.tokens_per_tile)
        made.append(
            Segment(
                id=name,
                start=start,
                tokens=tokens[start:end],
                labels=labels[start:end],
                positions=positions[start:end],
                visual=visual,
                images=shown,
                tokens_per_tile=layout.tokens_per_tile,
                pair=bool((caption_of[start:end] >= 0).any()),
                native=layout.native is not None,
            )
        )
    return made


def _images(batch: Batch) -> list[torch.Tensor]:
    """The tiles of each image, in order."""
    counts = torch.unique_consecutive(batch.image_of_tile, return_counts=True)[1]
    return list(torch.split(batch.tiles, counts.tolist()))


def _taken(
    images: list[torch.Tensor], placeholders: int, tokens_per_tile: int
) -> tuple[torch.Tensor, ...]:
    """The next images, as many as this number of placeholders stands for."""
    taken: list[torch.Tensor] = []
    while images and (sum(map(len, taken)) + len(images[0])) * tokens_per_tile <= placeholders:
        taken.append(images.pop(0))
    return tuple(taken)
