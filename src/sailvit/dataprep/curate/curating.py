"""Which records of a source are kept: filters one after the other, each applied to what the
ones before it kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sailvit.core.errors import DataError
from sailvit.core.records import Source
from sailvit.data.process_pool import map_ordered
from sailvit.dataprep.curate.concentration import NgramCounts
from sailvit.dataprep.curate.drop_report import Drop, DropReport
from sailvit.dataprep.curate.filters.base import (
    CopyFilter,
    Filter,
    RecordFilter,
    ScoredFilter,
    Scorer,
)
from sailvit.dataprep.curate.repeats import Repeats, repeated_records
from sailvit.dataprep.curate.resampling import Resampling
from sailvit.dataprep.curate.settings import Curation, filter_name
from sailvit.dataprep.curate.steps import (
    UNREADABLE,
    CountStep,
    Dropped,
    FilterStep,
    HashStep,
    KeepStep,
    Positions,
    ScoreStep,
)

Progress = Callable[[str, int, int], None]
"""Called with a step's name, the records it has done, and the records it has to do."""
Result = TypeVar("Result")

_CHUNK = 256
"""Records that a worker gets at a time. Which n-grams are named depends on it, so it does not
depend on the number of workers."""
_TOP = 20
"""N-grams in the table that compares before and after."""


@dataclass(frozen=True)
class Curated:
    """What curation kept of a source."""

    kept: NDArray[np.bool_]
    """bool[n]: whether each record is kept."""
    report: dict[str, Any]
    """Counts, reasons and examples per filter, and n-grams before and after, as JSON values."""

    @property
    def positions(self) -> Positions:
        """int64[n]: positions of the records that are kept, in order."""
        return np.flatnonzero(self.kept)


def curate(
    source: Source,
    curation: Curation,
    *,
    scorer: Callable[[str], Scorer] | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> Curated:
    """Apply the filters and the resampling; the result is the same for any number of workers.

    `scorer` opens the model that a similarity filter names. Memory is one byte per record;
    hashes go to temporary files once there are more than a million.
    """
    return _Curator(source, curation, scorer, workers, progress).run()


class _Curator:
    """The steps of one curation, and which records are left after each."""

    def __init__(
        self,
        source: Source,
        curation: Curation,
        scorer: Callable[[str], Scorer] | None,
        workers: int,
        progress: Progress | None,
    ) -> None:
        groups = (RecordFilter, ScoredFilter, CopyFilter)
        self._source = source
        self._curation = curation
        self._scorer = scorer
        self._workers = workers
        self._progress = progress
        self._groups = [
            [found for found in curation.filters if isinstance(found, group)] for group in groups
        ]
        self._order: list[Filter] = [found for group in self._groups for found in group]
        steps = [
            "unreadable",
            *map(filter_name, self._order),
            *(["resampling"] if curation.resampling else []),
        ]
        self._drops = DropReport(source, steps)
        self._kept = np.ones(len(source), dtype=bool)

    def run(self) -> Curated:
        """Run every step, each on the records that are left."""
        # All settings before any record: a wrong path must not end hours of filtering.
        for found in self._order:
            found.check()
        alone, scored, copies = self._groups
        # Cheap filters first, so that models and hashes see only what these keep. Copies last:
        # of equal records the one that is kept has passed all else.
        self._filter(alone)  # type: ignore[arg-type]
        for found in scored:
            self._score(found)  # type: ignore[arg-type]
        for found in copies:
            self._drop_copies(found)  # type: ignore[arg-type]
        thinned = self._resample(self._curation.resampling) if self._curation.resampling else {}
        kept = int(self._kept.sum())
        counts = {"records": len(self._kept), "kept": kept, "dropped": len(self._kept) - kept}
        return Curated(self._kept, {**counts, "filters": self._drops.accounts(), **thinned})

    def _filter(self, filters: Sequence[RecordFilter]) -> None:
        for dropped in self._each("filters", FilterStep(self._source, filters).apply):
            self._enter(dropped, 1)

    def _score(self, found: ScoredFilter) -> None:
        if self._scorer is None:
            raise DataError(
                f"filter {filter_name(found)} needs a model; give `scorer`, which opens"
                f" {found.model}"
            )
        step = ScoreStep(self._source, found, self._scorer(found.model))
        # One process: the model is the slow part and uses all cores, or the one device.
        for dropped in self._each(filter_name(found), step.apply, workers=0):
            self._enter(dropped, 1 + self._order.index(found))

    def _drop_copies(self, found: CopyFilter) -> None:
        with TemporaryDirectory(prefix="sailvit-") as folder:
            repeats = Repeats(Path(folder), distance=found.reach())
            for rows, dropped in self._each(
                filter_name(found), HashStep(self._source, found).apply
            ):
                repeats.add(rows)
                self._enter(dropped, 1)
            for position, first in repeated_records(repeats.find()):
                drop = Drop(position, found.why, f"as at position {first}")
                self._enter([(0, drop)], 1 + self._order.index(found))

    def _resample(self, resampling: Resampling) -> dict[str, Any]:
        before, after = (NgramCounts(resampling.n, width=resampling.width) for _ in range(2))
        for chunk in self._each("n-grams", CountStep(self._source, resampling.n).apply):
            before.add(chunk)
        step = KeepStep(self._source, resampling, before, self._curation.seed)
        for dropped, chunk in self._each("resampling", step.apply):
            self._enter(dropped, 1 + len(self._order))
            after.add(chunk)
        return {"ngrams": compared(before, after)}

    def _each(
        self, name: str, step: Callable[[Positions], Result], *, workers: int | None = None
    ) -> Iterator[Result]:
        """The step's results, chunk by chunk of the records that are left."""
        total, done = len(self._kept), 0
        for result in map_ordered(
            step, self._chunks(), workers=self._workers if workers is None else workers
        ):
            yield result
            # Chunks are stretches of all records, so those that are gone already count as done.
            done = min(done + _CHUNK, total)
            if self._progress is not None:
                self._progress(name, done, total)

    def _chunks(self) -> Iterator[Positions]:
        for start in range(0, len(self._kept), _CHUNK):
            yield np.flatnonzero(self._kept[start : start + _CHUNK]) + start

    def _enter(self, dropped: Dropped, first: int) -> None:
        """Mark records as dropped and report them; the report's entry of the step's first
        filter is number `first`.
        """
        for index, drop in dropped:
            self._kept[drop.position] = False
            self._drops.enter(0 if index == UNREADABLE else first + index, drop)


def compared(before: NgramCounts, after: NgramCounts) -> dict[str, Any]:
    """Figures of n-grams before and after resampling, and both shares of those that were the
    most frequent before, as JSON values.
    """
    top = [
        {
            "words": name,
            "before": count / before.texts,
            "after": after.count(key) / max(after.texts, 1),
        }
        for key, name, count in before.top(_TOP)
    ]
    return {
        "before": before.summary(),
        "after": after.summary(),
        "kept": after.texts / max(before.texts, 1),
        "top": top,
    }
