"""What every record of a source costs, measured once per tokenizer and visual layout, and kept on disk."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sailvit.core.errors import DataError
from sailvit.core.records import Source
from sailvit.data.caches import cache_folder
from sailvit.data.formats.indexed import IndexedSource
from sailvit.data.formats.keys import count_unread
from sailvit.data.index.costs import Costs, CostTable
from sailvit.data.index.crew import each
from sailvit.data.index.fingerprints import (
    VERSION,
    digest,
    layout_fingerprint,
    tokenizer_fingerprint,
)
from sailvit.data.samples import UNUSABLE, SampleBuilder
from sailvit.distributed.processes import local_rank, world

Counts = NDArray[np.int32]
"""Tokens and tiles per record, int32[2, n]."""
Progress = Callable[[str, int, int], None]
"""Is told a source's name, how many of its records are measured, and how many there are."""

_CHUNK = 1024
"""Records per job."""
_SMALL = 20_000
"""Records up to which starting processes (seconds each) costs more than it saves."""
_GLANCE = 0.2
"""Seconds between looks for a file that another process writes."""


def measure(
    name: str,
    source: Source,
    builder: SampleBuilder,
    *,
    workers: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> CostTable:
    """Tokens, uncut, and tiles of every record, read from the source's index or from `cache` where they are known.

    Bad records cost nothing. The counts do not depend on the number of workers. Without index and `cache` they are
    measured again at every call. DataError when an index was counted with another tokenizer or layout.
    """
    indexed = indexed_costs(name, source, builder)
    if indexed is not None:
        return indexed
    file = None if cache is None else cache / counts_name(source, cost_basis(builder))
    counts = None if file is None else _read(file, len(source))
    unread = None if file is None or counts is None else _read_unread(file, counts)
    if counts is None or unread is None:
        draft = _Draft(file, len(source))
        unread = _fill(draft.counts, name, source, builder, workers=workers, progress=progress)
        counts = draft.finish(unread)
    return CostTable(counts[0], counts[1], tuple(getattr(source, "shards", ())), unread)


def measure_all(
    sources: Mapping[str, Source],
    builder: SampleBuilder,
    *,
    workers: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Costs]:
    """The costs of every source; of the processes on a machine the first one measures, the others read what it found.

    They wait for its files and not at a barrier, which gives up after some minutes. The folder is `costs` in the
    program's cache unless `cache` names another.
    """
    cache = cache or cache_folder("costs")
    if world() > 1 and local_rank() > 0:
        basis = cost_basis(builder)
        for name, source in sources.items():
            if indexed_costs(name, source, builder) is None:
                _wait_for(cache / counts_name(source, basis))
    return {
        name: measure(name, source, builder, workers=workers, cache=cache, progress=progress)
        for name, source in sources.items()
    }


def indexed_costs(name: str, source: Source, builder: SampleBuilder) -> CostTable | None:
    """The costs that a source's own index holds; none when it has none."""
    if not isinstance(source, IndexedSource) or source.manifest.measured is None:
        return None
    tokenizer = tokenizer_fingerprint(builder.tokenizer, builder.day)
    layout = layout_fingerprint(builder.layout)
    try:
        counts = source.counts(tokenizer=tokenizer, layout=layout)
    except DataError as error:
        raise DataError(f"source {name}: {error}", kind=error.kind) from error
    return CostTable(counts[0], counts[1], source.shards, source.manifest.unread)


def cost_basis(builder: SampleBuilder) -> str:
    """Hash of all that counts depend on beside the records: tokenizer, layout, and the version of the counting."""
    return digest(
        [
            VERSION,
            tokenizer_fingerprint(builder.tokenizer, builder.day),
            layout_fingerprint(builder.layout),
        ]
    )


def counts_name(source: Source, basis: str) -> str:
    """Name of the file of a source's counts; how a recipe calls the source is no part of it."""
    return f"{digest([source.fingerprint, len(source), basis])}.npy"


@dataclass(frozen=True)
class Measurer:
    """Costs of stretches of a source; goes to the processes of a crew."""

    source: Source
    """Gives the records."""
    builder: SampleBuilder
    """Tokenizes them."""

    def measure(self, stretch: range) -> tuple[Counts, Counter[str]]:
        """Tokens and tiles, int32[2, n], of the records at these positions, and how many of them
        hold each key that is not read.
        """
        unread = Counter[str]()
        costs = [self._cost(position, unread) for position in stretch]
        return np.array(costs, dtype=np.int32).reshape(-1, 2).T, unread

    def _cost(self, position: int, unread: Counter[str]) -> tuple[int, int]:
        try:
            record = self.source[position]
            count_unread(unread, record.unread)
            return self.builder.cost(record)
        except UNUSABLE:
            return 0, 0


def _fill(
    counts: Counts,
    name: str,
    source: Source,
    builder: SampleBuilder,
    *,
    workers: int,
    progress: Progress | None,
) -> dict[str, int]:
    """Measure a source into int32[2, n]; returns the keys that are not read, and their records."""
    total, unread = len(source), Counter[str]()
    stretches = (range(start, min(start + _CHUNK, total)) for start in range(0, total, _CHUNK))
    done = 0
    for found, left in each(
        Measurer(source, builder).measure, stretches, workers=workers if total > _SMALL else 0
    ):
        counts[:, done : done + found.shape[1]] = found
        done += found.shape[1]
        unread.update(left)
        if progress is not None:
            progress(name, done, total)
    return dict(unread.most_common())


class _Draft:
    """Counts in the making: in memory, or in a file that gets its name when they are complete."""

    def __init__(self, file: Path | None, records: int) -> None:
        self._file = file
        self._records = records
        self.counts: Counts = np.zeros((2, records), dtype=np.int32)
        if file is not None and records:
            self.counts = self._open(file)

    def finish(self, unread: Mapping[str, int]) -> Counts:
        """The counts, now to be found under their name, with the unread keys behind them."""
        if self._file is None or not self._records:
            return self.counts
        self.counts.flush()  # type: ignore[attr-defined]
        with self._part(self._file).open("ab") as file:
            file.write(json.dumps(unread).encode())
        self._part(self._file).replace(self._file)
        counts: Counts = np.load(self._file, mmap_mode="r", allow_pickle=False)
        return counts

    def _open(self, file: Path) -> Counts:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            return np.lib.format.open_memmap(
                self._part(file), mode="w+", dtype=np.int32, shape=(2, self._records)
            )
        except OSError as error:
            raise DataError(
                f"{file.parent} cannot be written ({error}); it keeps token counts of data sets: let $SAILVIT_CACHE"
                " name a folder that can",
                kind="cache",
            ) from error

    @staticmethod
    def _part(file: Path) -> Path:
        return file.with_name(f"{file.name}.{os.getpid()}.part")


def _read(file: Path, records: int) -> Counts | None:
    """Counts kept earlier; none when there are none, or none that can be used."""
    try:
        counts = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return counts if counts.shape == (2, records) and counts.dtype == np.int32 else None


def _read_unread(file: Path, counts: Counts) -> dict[str, int] | None:
    """The keys that were not read when a source was measured, which stand behind its counts.

    NumPy reads as many bytes as an array has, so both are one file, written as a whole.
    """
    try:
        with file.open("rb") as opened:
            opened.seek(getattr(counts, "offset", 0) + counts.nbytes)
            found: dict[str, int] = json.loads(opened.read())
    except (OSError, ValueError):
        return None
    return found


def _wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(_GLANCE)
