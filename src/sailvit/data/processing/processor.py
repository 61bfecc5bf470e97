"""The processor: a record is tokenized first (a draft, which is cheap and enough to plan
packs), and its images are decoded when its pack is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sailvit.core.batch import IGNORED, Grids
from sailvit.core.errors import DataError
from sailvit.core.layout import VisualLayout
from sailvit.core.records import ImageLike, Record, Sample
from sailvit.data.processing.images import (
    image_size,
    join_tiles,
    load_image,
    tile_count,
    tile_grid,
    tile_image,
)
from sailvit.data.processing.text import FastTokenizer, TextEncoder, Tokenized


@dataclass(frozen=True)
class Draft:
    """A sample whose images are not decoded yet."""

    id: str
    """`source/record id`."""
    record: Record
    """The record."""
    text: Tokenized
    """Its tokens, cut to fit the pack."""
    whole: int
    """Number of tokens before the cut."""

    def __len__(self) -> int:
        return len(self.text)


class Facts(NamedTuple):
    """What a record takes in a pack, and what can be learnt from it."""

    tokens: int
    """Tokens before any cut, placeholders included."""
    tiles: int
    """Number of tiles."""
    first: int
    """Position of the first token with loss."""
    pair: int
    """1 for a caption of one image, which the contrastive objective can use."""


class Tiler:
    """Makes tiles of images; a file or byte string that was tiled before is not decoded again.

    With `space`, uint8[n], the tiles of all calls are made there, one behind the other, which
    saves a copy.
    """

    def __init__(self, layout: VisualLayout, space: torch.Tensor | None = None) -> None:
        self._layout = layout
        self._space = space
        self._known: dict[Path | bytes, list[tuple[Path | bytes, torch.Tensor]]] = {}
        self.used = 0
        """Bytes of `space` that are used."""

    def __call__(self, image: ImageLike) -> torch.Tensor:
        """The tiles uint8[I, 3, H, W] of an image, of shape (tiles, 3, height, width)."""
        if not isinstance(image, Path | bytes):
            return self._tiled(image)
        # Equal middles do not prove equal images, so whole ones are compared, which is rare.
        alike = self._known.setdefault(_key(image), [])
        known = next((tiles for seen, tiles in alike if seen == image), None)
        if known is not None:
            return self._again(known)
        tiles = self._tiled(image)
        alike.append((image, tiles))
        return tiles

    def give_back(self, used: int) -> None:
        """Free the space beyond its first `used` bytes."""
        self.used = used
        # Tiles that are known may lie beyond the new end, where others are made next.
        self._known.clear()

    def _tiled(self, image: ImageLike) -> torch.Tensor:
        free = None if self._space is None else self._space[self.used :]
        tiles = tile_image(load_image(image), self._layout, free)
        self.used += tiles.nbytes
        return tiles

    def _again(self, tiles: torch.Tensor) -> torch.Tensor:
        if self._space is None:
            return tiles
        start, self.used = self.used, self.used + tiles.nbytes
        place = self._space[start : self.used].view(len(tiles), *tiles.shape[2:], -1)
        return place.permute(0, 3, 1, 2).copy_(tiles)


def _key(image: Path | bytes) -> Path | bytes:
    """A key that equal images share, and different ones hardly ever."""
    # 64 bytes from the middle, as hashing all of them would cost more.
    return image if isinstance(image, Path) else image[len(image) // 2 : len(image) // 2 + 64]


class Processor:
    """Makes samples of at most `longest` tokens from records, for one tokenizer and one visual
    layout.

    `day` is the date that dated chat templates write; None: today.
    """

    def __init__(
        self,
        tokenizer: FastTokenizer,
        layout: VisualLayout,
        longest: int,
        *,
        day: date | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.layout = layout
        self.longest = longest
        self.day = day or date.today()
        self.encoder = TextEncoder(tokenizer, layout, self.day)
        # 0 and 1 come last, as one of two ids is never the placeholder.
        spare = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0, 1)
        self.padding_id: int = next(
            token for token in spare if token is not None and token != layout.placeholder_id
        )
        """Token id that fills rows: any id but the placeholder, as padding is a segment of its
        own."""

    def __call__(self, source: str, record: Record) -> Sample:
        """The sample of a record: tokens int64[T], of shape (T), and tiles uint8[I, C, H, W]."""
        return self.finish(self.draft(source, record))

    def cost(self, record: Record) -> tuple[int, int]:
        """Tokens before any cut, and tiles, of a record; reads at most its images' headers."""
        tiles = [tile_count(image, self.layout) for image in record.images]
        return len(self.encoder.encode(record, tiles)), sum(tiles)

    def facts(self, record: Record) -> Facts:
        """What planning and its checks need to know of a record; of its images, only headers
        are read.
        """
        sizes = [image_size(image) for image in record.images]
        tiles = [tile_count(image, self.layout) for image in record.images]
        text = self.encoder.encode(record, tiles)
        learnt = np.flatnonzero(text.labels != IGNORED)
        if not len(learnt):
            raise _without_answer(text, text, self.longest)
        pair = record.kind == "caption" and len(sizes) == 1
        return Facts(len(text), sum(tiles), int(learnt[0]), int(pair))

    def draft(self, source: str, record: Record, *, most_tiles: int | None = None) -> Draft:
        """The record as tokens, cut to `longest` and before the first image that exceeds
        `most_tiles`; reads at most its images' headers.
        """
        tiles = [tile_count(image, self.layout) for image in record.images]
        text = self.encoder.encode(record, tiles)
        return Draft(f"{source}/{record.id}", record, self._cut(text, most_tiles), len(text))

    def prompt(self, source: str, record: Record) -> Sample:
        """The record up to its last answer, without labels, from which generation starts."""
        text = self.prompt_text(record)
        return self.finish(Draft(f"{source}/{record.id}", record, text, len(text)))

    def prompt_text(self, record: Record) -> Tokenized:
        """The tokens of that prompt alone; reads at most its images' headers."""
        tiles = [tile_count(image, self.layout) for image in record.images]
        return self.encoder.encode_prompt(record, tiles)

    def finish(self, draft: Draft, tiler: Tiler | None = None) -> Sample:
        """The sample of a draft, with its images decoded and tiled; drafts that share a `tiler`
        decode each image once.
        """
        size, images = self.layout.tile_size, draft.record.images[: len(draft.text.runs)]
        cuts = list(map(tiler or Tiler(self.layout), images))
        return Sample(
            id=draft.id,
            tokens=torch.from_numpy(draft.text.tokens),
            labels=torch.from_numpy(draft.text.labels),
            tiles=join_tiles(cuts) if cuts else torch.zeros(0, 3, size, size, dtype=torch.uint8),
            image_of_tile=torch.from_numpy(np.arange(len(cuts)).repeat([len(cut) for cut in cuts])),
            caption=draft.record.kind == "caption" and len(cuts) == 1,
            grids=self.grids(images),
        )

    def grids(self, images: Sequence[ImageLike]) -> Grids | None:
        """Rows and columns of tiles of each image in native resolution, else None; only headers
        are read.
        """
        if self.layout.native is None:
            return None
        found = (tile_grid(*image_size(image), self.layout) for image in images)
        return tuple((rows, columns) for columns, rows in found)

    def _cut(self, text: Tokenized, most_tiles: int | None) -> Tokenized:
        """At most `longest` tokens: the end is cut off, and an image's placeholders are kept or
        cut together.
        """
        last, edge = self.longest, self.layout.edge
        if most_tiles is not None:
            last = min(last, _within(text, most_tiles * self.layout.tokens_per_tile, edge))
        if len(text) > last:
            runs = tuple(run for run in text.runs if run[1] + edge <= last)
            end = text.runs[len(runs)][0] - edge if len(runs) < len(text.runs) else len(text)
            end = min(end, last)
            labels = text.labels[:end].copy()
            # What the last token should predict has been cut off.
            labels[-1:] = IGNORED
            cut = Tokenized(text.tokens[:end], labels, runs)
        else:
            cut = text
        if not np.any(cut.labels != IGNORED):
            raise _without_answer(text, cut, self.longest)
        return cut


def _within(text: Tokenized, placeholders: int, edge: int) -> int:
    """Tokens before the first image that exceeds this number of placeholders, and before its
    `edge`; all when none does.
    """
    counts = np.cumsum([end - start for start, end in text.runs])
    beyond = np.flatnonzero(counts > placeholders)
    return text.runs[beyond[0]][0] - edge if len(beyond) else len(text)


def _without_answer(text: Tokenized, cut: Tokenized, longest: int) -> DataError:
    if len(cut) == len(text):
        return DataError(
            "nobody answers; expected a turn of the assistant to learn: add it", kind="turns"
        )
    return DataError(
        f"no answer among the first {len(cut)} of {len(text)} tokens, all that a pack of"
        f" {longest} holds; lengthen the recipe's `sequence`, allow fewer tiles, or shorten the"
        " prompt",
        kind="too long",
    )
