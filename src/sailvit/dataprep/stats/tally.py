"""Counts over a stretch of a source; tallies of stretches add up to that of the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sailvit.core.errors import DataError, one_line
from sailvit.data.processing.processor import Processor
from sailvit.data.rows.keys import count_unread
from sailvit.dataprep.curate.concentration import NgramChunk, count_ngrams
from sailvit.dataprep.curate.external_buckets import Rows
from sailvit.dataprep.curate.filters.languages import language
from sailvit.dataprep.curate.repeats import ROW, rows_of
from sailvit.dataprep.records.joined import Joined
from sailvit.dataprep.records.record_view import DAMAGE, RecordView
from sailvit.dataprep.stats.histogram import Histogram

WHOLE = ("turns", "images_per_record", "tiles")
"""Measures that are small whole numbers, so that each number has its own bin."""
MEASURES = (
    "width",
    "height",
    "aspect",
    "bytes",
    "answer_characters",
    "characters",
    "tokens",
    *WHOLE,
)
"""What is measured per image or per record."""
COPIES = ("text", "image", "picture")
"""What may be copied: a record's text, an image's bytes, how an image looks."""
_EXAMPLES = 5
"""Unreadable records named per kind of damage and stretch."""


class Tally:
    """Counts and histograms of some records."""

    def __init__(self) -> None:
        self.records = 0
        self.images = 0
        self.kinds: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.unreadable: Counter[str] = Counter()
        self.damage: dict[str, list[dict[str, Any]]] = {}
        self.unread: dict[str, Counter[str]] = {}
        self.measures = {name: Histogram(whole=name in WHOLE) for name in MEASURES}

    def add(self, view: RecordView, *, processor: Processor | None) -> None:
        """Count a record; if it cannot be read, nothing of it is counted."""
        # All that can fail comes first.
        found = _measured(view, processor)
        spoken = language(view.answers or view.text)
        self.records += 1
        self.images += len(view.record.images)
        self.kinds[view.record.kind] += 1
        self.languages[spoken] += 1
        for name, values in found.items():
            self.measures[name].add(values)

    def note_unread(self, source: str, keys: Sequence[str]) -> None:
        """Count keys that a record of this source holds and that are not read."""
        if keys:
            count_unread(self.unread.setdefault(source, Counter()), keys)

    def refuse(self, position: int, error: Exception) -> None:
        """Count a record that cannot be read."""
        kind = error.kind if isinstance(error, DataError) else type(error).__name__
        self.unreadable[kind] += 1
        self._note(kind, [{"position": position, "error": one_line(error)}])

    def merge(self, other: Tally) -> None:
        """Add the tally of a later stretch."""
        self.records += other.records
        self.images += other.images
        for name in ("kinds", "languages", "unreadable"):
            getattr(self, name).update(getattr(other, name))
        for source, keys in other.unread.items():
            self.unread.setdefault(source, Counter()).update(keys)
        for kind, noted in other.damage.items():
            self._note(kind, noted)
        for name, histogram in other.measures.items():
            self.measures[name].merge(histogram)

    def _note(self, kind: str, noted: list[dict[str, Any]]) -> None:
        # Stretches are merged in order, so the examples are the first ones for any workers.
        self.damage[kind] = [*self.damage.get(kind, []), *noted][:_EXAMPLES]


def _measured(view: RecordView, processor: Processor | None) -> dict[str, list[float]]:
    """The values of every measure for one record."""
    tokens, tiles = processor.cost(view.record) if processor is not None else (None, None)
    return {
        "width": [size.width for size in view.sizes],
        "height": [size.height for size in view.sizes],
        "aspect": [size.width / size.height for size in view.sizes],
        "bytes": [len(content) for content in view.encoded],
        "answer_characters": [len(view.answers)],
        "characters": [len(view.text)],
        "turns": [len(view.record.turns)],
        "images_per_record": [len(view.record.images)],
        "tokens": [] if tokens is None else [tokens],
        "tiles": [] if tiles is None else [tiles],
    }


@dataclass(frozen=True)
class Stretch:
    """What was found in one stretch of a source."""

    tally: Tally
    """Counts and histograms."""
    ngrams: NgramChunk
    """N-grams of the answers."""
    copies: dict[str, Rows]
    """Hashes of texts, images and pictures, rows of type `ROW`."""


@dataclass(frozen=True)
class Surveyor:
    """Tallies stretches of a source; it is sent to the processes of a pool."""

    source: Joined
    """Gives the records."""
    processor: Processor | None
    """Counts tokens and tiles; None: neither is counted."""
    n: int
    """Words of an n-gram."""
    near: bool
    """Whether near copies are searched for, which needs decoded images."""

    def survey(self, positions: list[int]) -> Stretch:
        """The tally of the records at these positions."""
        tally, texts = Tally(), []
        copies: dict[str, list[Rows]] = {name: [np.zeros(0, ROW)] for name in COPIES}
        for position in positions:
            try:
                view = RecordView(position, self.source[position])
                tally.note_unread(self.source.find(position)[0], view.record.unread)
                # Before `add`: a record whose image cannot be decoded must be counted nowhere.
                hashes = self._hashes(view)
                tally.add(view, processor=self.processor)
            except DAMAGE as error:
                tally.refuse(position, error)
                continue
            texts.append(view.answers)
            for name, found in hashes.items():
                copies[name].append(found)
        joined = {name: np.concatenate(rows) for name, rows in copies.items()}
        return Stretch(tally, count_ngrams(texts, self.n), joined)

    def _hashes(self, view: RecordView) -> dict[str, Rows]:
        hashes = {"text": (view.text_hash,), "image": view.image_hashes}
        if self.near:
            hashes["picture"] = view.picture_hashes
        return {name: rows_of(view.position, found) for name, found in hashes.items()}
