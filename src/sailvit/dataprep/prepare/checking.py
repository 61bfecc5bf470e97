"""Reads a source to find everything that is wrong with it: counts by kind, and the first few
records of each kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import field_serializer

from sailvit.core.bad_records import UNUSABLE, BadRecord, bad_record
from sailvit.core.config import Config
from sailvit.core.layout import PLACEHOLDER
from sailvit.core.records import Source, faults_of, place_of
from sailvit.core.seeding import numpy_generator
from sailvit.data.process_pool import map_ordered
from sailvit.data.processing.images import load_image
from sailvit.data.processing.processor import Processor
from sailvit.data.processing.text import refuse_unlearnable
from sailvit.data.rows.keys import count_unread

_CHUNK = 256
"""Records that a worker gets at a time: few enough that the progress bar moves, many enough
that sending them costs nothing."""


class CheckReport(Config):
    """What was found in some sources."""

    records: int
    """Records of all sources."""
    checked: int
    """Records that were read."""
    images: int
    """Images that were decoded."""
    bad: dict[str, int]
    """Number of findings by kind, the most frequent first."""
    examples: list[BadRecord]
    """The first few findings of each kind."""
    unread: dict[str, dict[str, int]] = {}
    """Per source: keys of its rows that hold something and are not read, with the number of
    records that have them."""

    @field_serializer("examples")
    def _with_places(self, examples: list[BadRecord]) -> list[dict[str, Any]]:
        return [{**asdict(bad), "place": bad.place} for bad in examples]


Read: TypeAlias = tuple[int, list[BadRecord], Counter[str]]
"""Of a stretch of records: images decoded, findings, and keys that were not read."""


@dataclass(frozen=True)
class Checker:
    """Reads records in full; it is sent to the processes of a pool."""

    name: str
    """The source's name."""
    source: Source
    """Gives the records."""
    processor: Processor | None
    """Tokenizes records; None: only texts that every tokenizer would refuse are found."""

    def check(self, positions: NDArray[np.int64]) -> Read:
        """Images decoded, findings and unread keys of the records at these positions."""
        images, findings, unread = 0, [], Counter[str]()
        for position in map(int, positions):
            record = None
            try:
                record = self.source[position]
                count_unread(unread, record.unread)
                for image in record.images:
                    load_image(image)
                    images += 1
                if self.processor is None:
                    refuse_unlearnable(record, PLACEHOLDER)
                else:
                    self.processor.draft(self.name, record)
            except UNUSABLE as error:
                name, place = record.id if record else None, place_of(self.source, position)
                findings.append(bad_record(self.name, position, error, name=name, place=place))
        return images, findings, unread


def check(
    sources: Mapping[str, Source],
    *,
    processor: Processor | None = None,
    samples: int | None = None,
    most: int = 5,
    workers: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> CheckReport:
    """Read, decode and, if a `processor` is given, tokenize all records, or about `samples` of
    them, drawn with a fixed seed.

    `most` examples of each kind are kept. `progress` is called with a source's name, the
    records done, and how many there are. The report does not depend on the number of workers.
    """
    total = sum(map(len, sources.values()))
    counts = _ReadCounts(most)
    for name, source in sources.items():
        for fault in faults_of(source, name):
            counts.add(fault)
        positions = _positions(
            name, len(source), None if samples is None else samples / max(1, total)
        )
        done = 0
        for stretch, found in _read(Checker(name, source, processor), positions, workers):
            done += stretch
            counts.take(name, stretch, found)
            if progress is not None:
                progress(name, done, len(positions))
    return counts.report(total)


class _ReadCounts:
    """Counts by kind and the first examples, in memory that does not grow with the records."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._checked = 0
        self._images = 0
        self._bad: dict[str, int] = {}
        self._examples: dict[str, list[BadRecord]] = {}
        self._unread: dict[str, Counter[str]] = {}

    def take(self, source: str, records: int, found: Read) -> None:
        """Add what was found in a stretch of a source."""
        images, findings, unread = found
        self._checked += records
        self._images += images
        if unread:
            self._unread.setdefault(source, Counter()).update(unread)
        for finding in findings:
            self.add(finding)

    def add(self, finding: BadRecord) -> None:
        """Add one finding."""
        self._bad[finding.kind] = self._bad.get(finding.kind, 0) + finding.count
        examples = self._examples.setdefault(finding.kind, [])
        # Stretches come in order for any number of workers, so the first examples are the same.
        if len(examples) < self._most:
            examples.append(finding)

    def report(self, records: int) -> CheckReport:
        """The counts as a report; `records` is the number of all records."""
        bad = dict(sorted(self._bad.items(), key=lambda item: -item[1]))
        examples = [finding for kind in bad for finding in self._examples[kind]]
        return CheckReport(
            records=records,
            checked=self._checked,
            images=self._images,
            bad=bad,
            examples=examples,
            unread={name: dict(counts.most_common()) for name, counts in self._unread.items()},
        )


def _positions(name: str, records: int, share: float | None) -> NDArray[np.int64]:
    """All positions, or a random share of them, in order."""
    if share is None or share >= 1:
        return np.arange(records)
    count = min(records, max(1, round(records * share)))
    # A fixed seed, so that a check after a repair reads the same records.
    return np.sort(numpy_generator(0, "check", name).choice(records, count, replace=False))


def _read(
    checker: Checker, positions: NDArray[np.int64], workers: int
) -> Iterator[tuple[int, Read]]:
    """Number of records of every stretch, and what was found in it."""
    stretches = [positions[start : start + _CHUNK] for start in range(0, len(positions), _CHUNK)]
    yield from zip(
        map(len, stretches), map_ordered(checker.check, stretches, workers=workers), strict=True
    )
