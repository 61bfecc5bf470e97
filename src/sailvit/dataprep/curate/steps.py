"""The steps of a curation, one class each. A step is sent to the processes of a pool, which
apply it to chunks of a source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sailvit.core.errors import DataError
from sailvit.core.formatting import percent
from sailvit.core.records import Source
from sailvit.dataprep.curate.concentration import NgramChunk, NgramCounts, count_ngrams
from sailvit.dataprep.curate.drop_report import Drop
from sailvit.dataprep.curate.external_buckets import Rows
from sailvit.dataprep.curate.filters.base import (
    CopyFilter,
    Objection,
    RecordFilter,
    ScoredFilter,
    Scorer,
)
from sailvit.dataprep.curate.repeats import ROW, rows_of
from sailvit.dataprep.curate.resampling import Resampling, chance
from sailvit.dataprep.records.record_view import DAMAGE, RecordView
from sailvit.dataprep.records.words import ngrams, words

Positions = NDArray[np.int64]
"""Positions in a source, int64[n], in order."""

UNREADABLE = -1
"""In place of a filter's index: the record cannot be read."""

Dropped = list[tuple[int, Drop]]
"""Dropped records, each with the index of the step's filter that objected, or `UNREADABLE`."""


@dataclass(frozen=True)
class FilterStep:
    """Filters that need nothing but the record."""

    source: Source
    """Gives the records."""
    filters: Sequence[RecordFilter]
    """In order; the first that objects counts."""

    def apply(self, positions: Positions) -> Dropped:
        """The records at these positions, int64[n], that are dropped."""
        return [found for position in positions.tolist() if (found := self._judge(position))]

    def _judge(self, position: int) -> tuple[int, Drop] | None:
        try:
            view = RecordView(position, self.source[position])
            for index, each in enumerate(self.filters):
                if each.applies_to(view) and (objection := each.objection(view)):
                    return index, Drop(position, *objection)
        except DAMAGE as error:
            return UNREADABLE, damaged(position, error)
        return None


@dataclass(frozen=True)
class ScoreStep:
    """A filter by how well image and text match."""

    source: Source
    """Gives the records."""
    filter: ScoredFilter
    """Judges the scores."""
    scorer: Scorer
    """Gives the scores."""

    def apply(self, positions: Positions) -> Dropped:
        """The records at these positions, int64[n], that are dropped."""
        dropped: Dropped = []
        views: list[RecordView] = []
        for position in positions.tolist():
            try:
                view = RecordView(position, self.source[position])
                if self.filter.applies_to(view) and view.pixels:
                    views.append(view)
            except DAMAGE as error:
                dropped.append((UNREADABLE, damaged(position, error)))
            if sum(len(view.pixels) for view in views) >= self.filter.batch:
                dropped += self._judge(views)
                views = []
        # Scores wait for their batch, and unreadable records do not: the report wants both in
        # order of position.
        return sorted(dropped + list(self._judge(views)), key=lambda found: found[1].position)

    def _judge(self, views: Sequence[RecordView]) -> Iterator[tuple[int, Drop]]:
        images = [pixels for view in views for pixels in view.pixels]
        # Each image is scored with the whole text: nothing says which sentence is about which.
        texts = [view.answers for view in views for _ in view.pixels]
        scores = list(self.scorer(images, texts)) if images else []
        for view in views:
            own, scores = scores[: len(view.pixels)], scores[len(view.pixels) :]
            objection: Objection | None = self.filter.judge(view, own)
            if objection:
                yield 0, Drop(view.position, *objection)


@dataclass(frozen=True)
class HashStep:
    """The hashes that a filter of copies compares."""

    source: Source
    """Gives the records."""
    filter: CopyFilter
    """Gives their hashes."""

    def apply(self, positions: Positions) -> tuple[Rows, Dropped]:
        """Hashes of the records at these positions, int64[n], as rows of type `ROW`, and the
        records that cannot be read.
        """
        rows: list[Rows] = [np.zeros(0, ROW)]
        dropped: Dropped = []
        for position in positions.tolist():
            try:
                view = RecordView(position, self.source[position])
                if self.filter.applies_to(view):
                    rows.append(rows_of(position, self.filter.hashes(view)))
            except DAMAGE as error:
                dropped.append((UNREADABLE, damaged(position, error)))
        return np.concatenate(rows), dropped


@dataclass(frozen=True)
class CountStep:
    """First pass of resampling: how many records have each n-gram."""

    source: Source
    """Gives the records."""
    n: int
    """Words of an n-gram."""

    def apply(self, positions: Positions) -> NgramChunk:
        """The n-grams of the records at these positions, int64[n]."""
        # `FilterStep` runs in every curation and has dropped records that cannot be read.
        return count_ngrams(
            (RecordView(p, self.source[p]).answers for p in positions.tolist()), self.n
        )


@dataclass(frozen=True)
class KeepStep:
    """Second pass of resampling: which records are kept."""

    source: Source
    """Gives the records."""
    resampling: Resampling
    """Gives the probabilities."""
    counts: NgramCounts
    """What the first pass counted."""
    seed: int
    """Seed of the choices."""

    def apply(self, positions: Positions) -> tuple[Dropped, NgramChunk]:
        """The records at these positions, int64[n], that are dropped, and the n-grams of those
        that are kept.
        """
        dropped: Dropped = []
        texts: list[str] = []
        views = [RecordView(position, self.source[position]) for position in positions.tolist()]
        for view, shares in zip(views, self._shares(views), strict=True):
            probability = self.resampling.probability(shares)
            if chance(self.seed, view.record.id) < probability:
                texts.append(view.answers)
            else:
                found = f"an n-gram of many, and {percent(probability)} of such records are kept"
                dropped.append((0, Drop(view.position, "over-represented n-gram", found)))
        return dropped, count_ngrams(texts, self.resampling.n)

    def _shares(self, views: Sequence[RecordView]) -> list[NDArray[np.float64]]:
        """The shares of each record's n-grams, looked up all at once."""
        hashes = [ngrams(words(view.answers), self.resampling.n) for view in views]
        every = self.counts.shares(np.concatenate([np.zeros(0, dtype=np.uint64), *hashes]))
        return np.split(every, np.cumsum([len(found) for found in hashes])[:-1]) if hashes else []


def damaged(position: int, error: Exception) -> Drop:
    """The drop of a record that cannot be read."""
    return Drop(
        position,
        error.kind if isinstance(error, DataError) else type(error).__name__,
        str(error)[:300],
    )
