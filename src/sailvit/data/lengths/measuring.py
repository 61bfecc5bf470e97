"""Measures what every record of a source costs, once per tokenizer and visual layout, and keeps
the counts on disk.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from sailvit.core.bad_records import UNUSABLE, BadRecord, bad_record
from sailvit.core.disk import explained
from sailvit.core.errors import DataError
from sailvit.core.records import Record, Source, shards_of
from sailvit.data.caches import cache_folder
from sailvit.data.lengths.costs import CostTable
from sailvit.data.lengths.counts import Counts, CountsDraft, kept_counts
from sailvit.data.lengths.fingerprints import (
    VERSION,
    digest,
    layout_fingerprint,
    tokenizer_fingerprint,
)
from sailvit.data.process_pool import map_ordered
from sailvit.data.processing.processor import Facts, Processor
from sailvit.data.rows.keys import count_unread
from sailvit.data.sources.indexed import IndexedSource
from sailvit.distributed.processes import (
    alarmed,
    alarming,
    as_one,
    gather_objects,
    local_rank,
    world,
)

Progress = Callable[[str, int, int], None]
"""Called with a source's name, how many of its records are measured, and how many there are."""

BAD = -1
"""In the place of the first token with loss, for records that cannot be used."""
_CHUNK = 1024
"""Records per job."""
_SMALL = 20_000
"""Up to so many records, starting processes (seconds each) costs more than it saves."""
_FAILED = "measuring failed"
"""Name of the alarm that ends the waiting of other processes when measuring fails."""
_GLANCE = 0.2
"""Seconds between checks for a file that another process writes."""


def measure(
    name: str,
    source: Source,
    processor: Processor,
    *,
    workers: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> CostTable:
    """Tokens, before any cut, and tiles of every record: from `cache` or the source's index
    where they are known, else measured.

    A bad record has the cost that it would have if repaired, where that is known, else none,
    and is measured again at every call. The counts do not depend on the number of workers.
    Without index and `cache` every call measures all records. DataError when an index was
    counted with another tokenizer or layout.
    """
    file = None if cache is None else cache / counts_name(source, cost_basis(processor))
    shards = shards_of(source)
    if file is not None and (kept := kept_counts(file, len(source))) is not None:
        counts, unread = kept
        counts, bad = _again(file, counts, unread, Measurer(name, source, processor))
        return CostTable(counts[0], counts[1], shards, unread, counts[2], counts[3], bad)
    indexed = indexed_costs(name, source, processor)
    if indexed is not None and not (file and stale_mark(file).exists()):
        return indexed
    draft = CountsDraft(file, len(source))
    bad, unread = _fill(draft.counts, name, source, processor, workers=workers, progress=progress)
    counts = draft.finish(unread)
    if file is not None:
        stale_mark(file).unlink(missing_ok=True)
    return CostTable(counts[0], counts[1], shards, unread, counts[2], counts[3], bad)


def stale_mark(file: Path) -> Path:
    """The path that exists beside a file of counts when a record differs from what was
    measured.
    """
    return file.with_suffix(".stale")


def mark_stale(name: str, source: Source, processor: Processor) -> str:
    """Have the next start measure a source again, as one of its records has changed; returns
    the sentence that says so.
    """
    file = cache_folder("costs") / counts_name(source, cost_basis(processor))
    # Where nothing can be written, no counts are kept either: every start measures.
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        stale_mark(file).touch()
    return (
        f"source {name} has changed since it was measured: records that no longer fit their"
        " packs are left out; the next start, also with --resume, measures it again"
    )


def measure_all(
    sources: Mapping[str, Source],
    processor: Processor,
    *,
    workers: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, CostTable]:
    """The costs of every source. On each machine the first process measures, and the others
    read its files from `cache`; None: the folder `costs` of the program's cache.

    Counts that a process of an earlier run found to be out of date are removed first. DataError
    when processes find different counts.
    """
    cache = cache or cache_folder("costs")
    _forget_stale(sources, processor, cache)
    costs: dict[str, CostTable] = {}
    # The others wait for files, as a barrier would give up after some minutes.
    with as_one(), alarming(_FAILED):
        if local_rank() == 0 or _all_there(sources, processor, cache):
            for name, source in sources.items():
                costs[name] = measure(
                    name, source, processor, workers=workers, cache=cache, progress=progress
                )
    if world() > 1:
        _refuse_differences(costs)
    return costs


def _forget_stale(sources: Mapping[str, Source], processor: Processor, cache: Path) -> None:
    """Remove the counts of changed sources on every machine, before any process reads them."""
    basis = cost_basis(processor)
    files = {name: cache / counts_name(source, basis) for name, source in sources.items()}
    marked = [name for name, file in files.items() if stale_mark(file).exists()]
    changed = {name for names in gather_objects(marked) for name in names}
    # No process reads counts before all have left this context.
    with as_one(), explained(str(cache), "start again"):
        for name in changed if local_rank() == 0 else ():
            files[name].parent.mkdir(parents=True, exist_ok=True)
            stale_mark(files[name]).touch()
            files[name].unlink(missing_ok=True)


def _refuse_differences(costs: Mapping[str, CostTable]) -> None:
    """DataError unless all processes have the same costs: they would plan different packs."""
    digests = {
        # Hashes are compared, as tables have 8 bytes for each of perhaps millions of records.
        name: blake2b(np.stack([table.tokens, table.tiles]).tobytes(), digest_size=8).hexdigest()
        for name, table in costs.items()
    }
    found = gather_objects(digests)
    if differing := [name for name in costs if len({each[name] for each in found}) > 1]:
        raise DataError(
            f"processes find different records in source {differing[0]}; expected the same"
            " files on every machine: make them the same and start again",
            kind="counts",
        )


def indexed_costs(name: str, source: Source, processor: Processor) -> CostTable | None:
    """The costs in a source's own index; None when it has none."""
    if not isinstance(source, IndexedSource) or source.manifest.measured is None:
        return None
    tokenizer = tokenizer_fingerprint(processor.tokenizer, processor.day)
    layout = layout_fingerprint(processor.layout)
    try:
        counts = source.counts(tokenizer=tokenizer, layout=layout)
    except DataError as error:
        raise DataError(f"source {name}: {error}", kind=error.kind) from error
    return CostTable(counts[0], counts[1], source.shards, source.manifest.unread)


def cost_basis(processor: Processor) -> str:
    """Hash of all that counts depend on beside the records: tokenizer, layout and `VERSION`."""
    return digest(
        [
            VERSION,
            tokenizer_fingerprint(processor.tokenizer, processor.day),
            layout_fingerprint(processor.layout),
        ]
    )


def counts_name(source: Source, basis: str) -> str:
    """Name of the file of a source's counts; it does not depend on the source's name."""
    return f"{digest([source.fingerprint, len(source), basis])}.npy"


@dataclass(frozen=True)
class Measurer:
    """Measures parts of a source; is sent to the processes of a pool."""

    name: str
    """The source's name."""
    source: Source
    """The source of the records."""
    processor: Processor
    """The processor that tokenizes them."""

    def measure(self, stretch: Iterable[int]) -> tuple[Counts, list[BadRecord], Counter[str]]:
        """`Facts` int32[4, n] of the records at these positions, with `first` BAD for bad ones;
        the bad records; and how many records hold each key that is not read.
        """
        bad, unread = list[BadRecord](), Counter[str]()
        found = [self._facts(position, bad, unread) for position in stretch]
        facts = np.array(found, dtype=np.int32).reshape(-1, len(Facts._fields)).T
        return facts, bad, unread

    def _facts(self, position: int, bad: list[BadRecord], unread: Counter[str]) -> tuple[int, ...]:
        record = None
        try:
            record = self.source[position]
            count_unread(unread, record.unread)
            return self.processor.facts(record)
        except UNUSABLE as error:
            bad.append(bad_record(self.name, position, error))
            return self._planned(record)

    def _planned(self, record: Record | None) -> Facts:
        """What a bad record costs: as much as if repaired, where that is known, so that its
        repair moves no other record; else nothing.
        """
        if record is not None:
            with suppress(*UNUSABLE):
                return Facts(*self.processor.cost(record), first=BAD, pair=0)
        return Facts(0, 0, first=BAD, pair=0)


def _fill(
    counts: Counts,
    name: str,
    source: Source,
    processor: Processor,
    *,
    workers: int,
    progress: Progress | None,
) -> tuple[tuple[BadRecord, ...], dict[str, int]]:
    """Measure a source into int32[4, n]; returns its bad records and the unread keys."""
    total, bad, unread = len(source), list[BadRecord](), Counter[str]()
    stretches = (range(start, min(start + _CHUNK, total)) for start in range(0, total, _CHUNK))
    done = 0
    for found, wrong, left in map_ordered(
        Measurer(name, source, processor).measure,
        stretches,
        workers=workers if total > _SMALL else 0,
    ):
        counts[:, done : done + found.shape[1]] = found
        done += found.shape[1]
        bad += wrong
        unread.update(left)
        if progress is not None:
            progress(name, done, total)
    return tuple(bad), dict(unread.most_common())


def _again(
    file: Path | None, counts: Counts, unread: dict[str, int], measurer: Measurer
) -> tuple[Counts, tuple[BadRecord, ...]]:
    """The counts after bad records were measured again, and the records that still are bad.
    The counts of repaired records are written to the file.

    Every process measures them itself: they are few, and the result depends on the records
    alone.
    """
    positions = np.flatnonzero(counts[2] == BAD)
    if not len(positions):
        return counts, ()
    found, bad, _ = measurer.measure(positions.tolist())
    if len(bad) < len(positions):
        # A copy, as the file is mapped and may not be written.
        counts = np.array(counts)
        counts[:, positions] = found
        if file is not None and local_rank() == 0:
            draft = CountsDraft(file, counts.shape[1])
            draft.counts[:] = counts
            draft.finish(unread)
    return counts, tuple(bad)


def _all_there(sources: Mapping[str, Source], processor: Processor, cache: Path) -> bool:
    """Wait for the files of this machine's first process; False when measuring failed."""
    basis = cost_basis(processor)
    for name, source in sources.items():
        file = cache / counts_name(source, basis)
        if stale_mark(file).exists() or indexed_costs(name, source, processor) is None:
            while not file.exists():
                if alarmed(_FAILED):
                    return False
                time.sleep(_GLANCE)
    return True
