"""Samples: a record tokenized first (a draft, cheap and enough to plan packs), decoded when its pack is dealt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sailvit.core.batch import IGNORED
from sailvit.core.errors import DataError
from sailvit.core.layout import VisualLayout
from sailvit.core.records import Record, Sample
from sailvit.data.images import load_image, tile_count, tile_image
from sailvit.data.text import FastTokenizer, TextEncoder, Tokenized


@dataclass(frozen=True)
class Draft:
    """A sample whose images are not decoded yet."""

    id: str
    """`source/record id`."""
    record: Record
    """What it was made from."""
    text: Tokenized
    """Its tokens, cut to the pack."""

    def __len__(self) -> int:
        return len(self.text)


class SampleBuilder:
    """Makes samples of at most `longest` tokens from records, for one tokenizer and one visual layout."""

    def __init__(self, tokenizer: FastTokenizer, layout: VisualLayout, longest: int) -> None:
        self.tokenizer = tokenizer
        self.layout = layout
        self.longest = longest
        self.encoder = TextEncoder(tokenizer, layout)
        spare = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0, 1)
        self.padding_id: int = next(token for token in spare if token is not None and token != layout.placeholder_id)
        """Token id that fills rows; any id but the placeholder will do, as padding is a segment of its own."""

    def __call__(self, source: str, record: Record) -> Sample:
        """The sample of a record: tokens int64[T] and tiles uint8[I, C, H, W], shape (tiles, 3, size, size)."""
        return self.finish(self.draft(source, record))

    def cost(self, record: Record) -> tuple[int, int]:
        """Tokens, uncut, and tiles of a record; reads at most the headers of its images."""
        tiles = [tile_count(image, self.layout) for image in record.images]
        return len(self.encoder.encode(record, tiles)), sum(tiles)

    def draft(self, source: str, record: Record) -> Draft:
        """The record as tokens; reads at most the headers of its images."""
        tiles = [tile_count(image, self.layout) for image in record.images]
        return Draft(f"{source}/{record.id}", record, self._cut(self.encoder.encode(record, tiles)))

    def prompt(self, source: str, record: Record) -> Sample:
        """The record up to its last answer, without labels: what generation starts from."""
        tiles = [tile_count(image, self.layout) for image in record.images]
        return self.finish(Draft(f"{source}/{record.id}", record, self.encoder.encode_prompt(record, tiles)))

    def finish(self, draft: Draft) -> Sample:
        """The sample of a draft, its images decoded and tiled."""
        size = self.layout.tile_size
        shown = draft.record.images[: len(draft.text.runs)]
        cuts = [tile_image(load_image(image), self.layout) for image in shown]
        counts = torch.tensor([len(cut) for cut in cuts], dtype=torch.int64)
        return Sample(
            id=draft.id,
            tokens=torch.from_numpy(draft.text.tokens),
            labels=torch.from_numpy(draft.text.labels),
            tiles=torch.cat(cuts) if cuts else torch.zeros(0, 3, size, size, dtype=torch.uint8),
            image_of_tile=torch.arange(len(cuts)).repeat_interleave(counts),
            caption=draft.record.kind == "caption" and len(cuts) == 1,
        )

    def _cut(self, text: Tokenized) -> Tokenized:
        """At most `longest` tokens: the end is cut off, and an image's placeholders go together or not at all."""
        if len(text) <= self.longest:
            return text
        runs = tuple(run for run in text.runs if run[1] <= self.longest)
        end = text.runs[len(runs)][0] if len(runs) < len(text.runs) else len(text)
        end = min(end, self.longest)
        labels = text.labels[:end].copy()
        labels[-1:] = IGNORED
        if not np.any(labels != IGNORED):
            raise DataError(
                f"no answer among the first {end} of {len(text)} tokens, all that a pack of {self.longest} holds;"
                " lengthen the recipe's `sequence`, allow fewer tiles, or shorten the prompt"
            )
        return Tokenized(text.tokens[:end], labels, runs)
