"""Statistics of sources, from one pass over their records, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sailvit.core.errors import DataError
from sailvit.core.records import Source
from sailvit.data.process_pool import map_ordered
from sailvit.data.processing.processor import Processor
from sailvit.dataprep.curate.concentration import NgramCounts
from sailvit.dataprep.curate.external_buckets import Rows
from sailvit.dataprep.curate.filters.languages import recognizer
from sailvit.dataprep.curate.repeats import Repeats
from sailvit.dataprep.records.joined import Joined
from sailvit.dataprep.stats.tally import COPIES, Stretch, Surveyor, Tally

Progress = Callable[[int, int], None]
"""Called with how many records are done, and of how many."""

DISTANCE = 6
"""Most bits in which the hashes of near copies differ: twice the bits of a copy at JPEG quality
50."""
_CHUNK = 256
"""Records that a worker gets at a time. Which n-grams are named depends on it, so it does not
depend on the number of workers."""
_EXAMPLES = 8
"""Copies of each kind that are listed."""


def survey(
    sources: Mapping[str, Source],
    *,
    processor: Processor | None = None,
    samples: int | None = None,
    near: bool = True,
    n: int = 4,
    workers: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Statistics as JSON values, the same for any number of workers.

    `samples` records, evenly spaced, are read; None: all. Tokens and tiles are counted if a
    `processor` is given. `near` searches for near copies, for which every image is decoded.
    """
    source = Joined(sources)
    read = min(len(source), samples or len(source))
    if not read:
        raise DataError(
            f"found no records in {', '.join(sources) or 'no source'}; expected one at least"
        )
    with TemporaryDirectory(prefix="sailvit-") as folder:
        sums = _Sums(Path(folder), n)
        found = map_ordered(
            Surveyor(source, processor, n, near).survey,
            _stretches(len(source), read),
            workers=workers,
        )
        for done, stretch in enumerate(found, 1):
            sums.add(stretch)
            if progress is not None:
                progress(min(done * _CHUNK, read), read)
        copies = {
            name: _copies(sums.copies[name].find(), source)
            for name in COPIES
            if near or name != "picture"
        }
    return {
        "sources": [_source(name, held) for name, held in sources.items()],
        "read": read,
        **_counted(sums.tally, source),
        "copies": copies,
        "distance": DISTANCE,
        "ngrams": sums.ngrams.summary(),
    }


class _Sums:
    """The sums over all stretches so far."""

    def __init__(self, folder: Path, n: int) -> None:
        self.tally = Tally()
        self.ngrams = NgramCounts(n)
        # Texts and bytes are copies when they are equal; only pictures have near ones.
        self.copies = {
            name: Repeats(folder / name, distance=DISTANCE * (name == "picture")) for name in COPIES
        }

    def add(self, stretch: Stretch) -> None:
        """Add the next stretch."""
        self.tally.merge(stretch.tally)
        self.ngrams.add(stretch.ngrams)
        for name, rows in stretch.copies.items():
            self.copies[name].add(rows)


def evenly(length: int, count: int) -> Iterator[int]:
    """`count` positions spread over a source of `length` records."""
    return (place * length // count for place in range(count))


def _stretches(length: int, count: int) -> Iterator[list[int]]:
    positions = evenly(length, count)
    while stretch := list(islice(positions, _CHUNK)):
        yield stretch


def _source(name: str, source: Source) -> dict[str, Any]:
    return {"name": name, "records": len(source), "fingerprint": source.fingerprint}


def _counted(tally: Tally, source: Joined) -> dict[str, Any]:
    damage = [
        {"kind": kind, **_where(note["position"], source), "error": note["error"]}
        for kind, notes in tally.damage.items()
        for note in notes
    ]
    return {
        "records": tally.records,
        "images": tally.images,
        "unreadable": dict(tally.unreadable.most_common()),
        "damage": damage,
        "kinds": dict(tally.kinds.most_common()),
        "languages": {"by": recognizer(), "counts": dict(tally.languages.most_common())},
        "unread": {name: dict(n.most_common()) for name, n in tally.unread.items()},
        "measures": {name: histogram.summary() for name, histogram in tally.measures.items()},
    }


def _copies(repeats: Rows, source: Joined) -> dict[str, Any]:
    """The number of copies, and examples, each with the record of which it is a copy."""
    # A record with several copied images has a row for each, and is one example.
    _, where = np.unique(repeats["position"], return_index=True)
    examples = [
        {"copy": _where(int(row["position"]), source), "of": _where(int(row["first"]), source)}
        for row in repeats[where[:_EXAMPLES]]
    ]
    return {"count": len(repeats), "examples": examples}


def _where(position: int, source: Joined) -> dict[str, Any]:
    name, inside = source.find(position)
    return {"source": name, "position": inside}
