"""The reader: planned packs as a batch, with bad records left out. It is what runs in worker processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from torch.utils.data import Dataset

from sailvit.core.batch import Batch
from sailvit.core.errors import DataError
from sailvit.core.records import Sample, Source
from sailvit.data.packing import collate
from sailvit.data.plan.draws import Drawn
from sailvit.data.reading.limits import time_limit
from sailvit.data.reading.quarantine import BadRecord
from sailvit.data.reading.shelf import Shelf, Shelved
from sailvit.data.samples import UNUSABLE, SampleBuilder, Tiler

_LONGEST_REASON = 1000
"""Characters kept of what an error says."""


@runtime_checkable
class Placed(Protocol):
    """A source that knows where its records lie."""

    def place(self, position: int) -> tuple[str, int | None]:
        """The file of the record at `position`, and its place there in bytes (in rows for Parquet)."""


@dataclass(frozen=True)
class Task:
    """Packs to be read for one batch."""

    step: int
    """The step they belong to, counted from 1."""
    packs: tuple[tuple[Drawn, ...], ...]
    """The draws of each."""
    slot: int | None = None
    """Where on the shelf the batch goes; none hands it over in memory of its own."""


@dataclass(frozen=True)
class Reading:
    """What became of a task."""

    held: Batch | Shelved
    """Its packs without bad records; a pack of bad records alone is a row of padding."""
    read: dict[str, int]
    """Records drawn per source, the bad ones included."""
    bad: tuple[BadRecord, ...]
    """Those that were left out."""

    @property
    def batch(self) -> Batch:
        """The batch; to be asked for once, as its slot is given back when it is gone."""
        return self.held.batch() if isinstance(self.held, Shelved) else self.held

    def pin_memory(self) -> Reading:
        """The same in page-locked memory; DataLoader calls it where there is a GPU."""
        return replace(self, held=self.batch.pin_memory())


class Reader(Dataset[Reading]):
    """Batches by task. Records are read anew each time; without a shelf it can go to any process."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        builder: SampleBuilder,
        *,
        shelf: Shelf | None = None,
        tiles: int | None = None,
        timeout: float | None = None,
    ) -> None:
        self._sources = sources
        self._builder = builder
        self._shelf = shelf
        self._tiles = tiles
        self._timeout = timeout

    def __getitem__(self, task: Task) -> Reading:
        bad: list[BadRecord] = []
        shelf, slot = self._shelf, task.slot
        tiler = Tiler(self._builder.layout, None if shelf is None or slot is None else shelf.room(slot))
        packs = [self._pack(task.step, pack, tiler, bad) for pack in task.packs]
        batch = collate(packs, padding_id=self._builder.padding_id)
        held = batch if shelf is None or slot is None else shelf.put(slot, batch)
        return Reading(held, dict(Counter(draw.source for pack in task.packs for draw in pack)), tuple(bad))

    def _pack(self, step: int, pack: Sequence[Drawn], tiler: Tiler, bad: list[BadRecord]) -> list[Sample]:
        """The samples of a pack in their planned order; an image that several of them show is decoded once."""
        samples = []
        for draw in pack:
            found = self._sample(step, draw, tiler)
            if isinstance(found, Sample):
                samples.append(found)
            else:
                bad.append(found)
        return samples

    def _sample(self, step: int, draw: Drawn, tiler: Tiler) -> Sample | BadRecord:
        name, source, used = "", self._sources[draw.source], tiler.used
        try:
            with time_limit(self._timeout):
                record = source[draw.position]
                name = record.id
                draft = self._builder.draft(draw.source, record, most_tiles=self._tiles)
                _check_planned(len(draft), draw)
                return self._builder.finish(draft, tiler)
        except UNUSABLE as error:
            tiler.give_back(used)
            told, place = _told(error), _place(source, draw.position)
            return BadRecord(step, draw.source, draw.position, _writable(name), *told, *place)


def _check_planned(tokens: int, draw: Drawn) -> None:
    """A record that grew since it was measured would burst its pack."""
    if tokens > draw.tokens:
        raise DataError(
            f"found {tokens} tokens where {draw.tokens} were measured; expected the record as it was then:"
            " index the source again and start the stage anew",
            kind="changed",
        )


def _place(source: Source, position: int) -> tuple[str | None, int | None]:
    """Where a record lies, if that is known; what tells it may be damaged too."""
    try:
        if isinstance(source, Placed):
            file, offset = source.place(position)
            return _writable(file), offset
    except UNUSABLE:
        pass
    return None, None


def _told(error: BaseException) -> tuple[str, str]:
    """Kind and reason of what made a record unusable."""
    if isinstance(error, DataError):
        return error.kind, _writable(str(error))
    kind = "unreadable" if isinstance(error, OSError) else "unexpected"
    return kind, _writable(f"{type(error).__name__}: {error}")


def _writable(text: str) -> str:
    """Foreign text as a line of JSON can hold it: without lone surrogates, and not without end."""
    return text[:_LONGEST_REASON].encode(errors="backslashreplace").decode()
