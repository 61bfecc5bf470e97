"""The reader, which runs in worker processes: planned packs as a batch, without bad records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice

from torch.utils.data import Dataset

from sailvit.core.bad_records import UNUSABLE, QuarantinedRecord, bad_record, quarantined
from sailvit.core.batch import Batch
from sailvit.core.errors import DataError
from sailvit.core.records import Sample, Source, place_of
from sailvit.data.loading.shared_memory import SharedBatch, SharedMemory
from sailvit.data.loading.time_limits import Limit
from sailvit.data.processing.collate import collate
from sailvit.data.processing.processor import Draft, Processor, Tiler
from sailvit.data.sampling.draws import Drawn

CHANGED = "changed"
"""Kind of bad records that are longer than when they were measured."""


@dataclass(frozen=True)
class BatchTask:
    """The packs of one batch."""

    step: int
    """The step they belong to, counted from 1."""
    packs: tuple[tuple[Drawn, ...], ...]
    """The draws of each pack."""
    slot: int | None = None
    """Slot of shared memory for the batch; None: the batch is sent in memory of its own."""


@dataclass(frozen=True)
class LoadedBatch:
    """The result of a task."""

    held: Batch | SharedBatch
    """Packs without bad records; a pack of bad records alone is a row of padding."""
    read: dict[str, int]
    """Records drawn per source, the bad ones included."""
    bad: tuple[QuarantinedRecord, ...]
    """Those that were left out."""
    changed: tuple[str, ...] = ()
    """Sources of which a record differs from what was measured."""

    @property
    def batch(self) -> Batch:
        """The batch; read it once, as its slot is used again when it is gone."""
        return self.held.batch() if isinstance(self.held, SharedBatch) else self.held

    def pin_memory(self) -> LoadedBatch:
        """The same with its batch in page-locked memory; DataLoader calls it where there is a
        GPU.
        """
        return replace(self, held=self.batch.pin_memory())


class BatchReader(Dataset[LoadedBatch]):
    """Batches by task. Every task reads its records anew; without shared memory the reader can
    be sent to any process.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        processor: Processor,
        *,
        memory: SharedMemory | None = None,
        tiles: int | None = None,
        timeout: float | None = None,
    ) -> None:
        self._sources = sources
        self._processor = processor
        self._memory = memory
        self._tiles = tiles
        self._timeout = timeout

    def __getitem__(self, task: BatchTask) -> LoadedBatch:
        memory, slot = self._memory, task.slot
        tiler = Tiler(
            self._processor.layout, None if memory is None or slot is None else memory.space(slot)
        )
        found, changed = self._samples(task, tiler)
        left = iter(found)
        packs = [
            [s for s in islice(left, len(pack)) if isinstance(s, Sample)] for pack in task.packs
        ]
        batch = collate(packs, padding_id=self._processor.padding_id)
        held = batch if memory is None or slot is None else memory.put(slot, batch)
        read = Counter(draw.source for pack in task.packs for draw in pack)
        bad = tuple(each for each in found if isinstance(each, QuarantinedRecord))
        return LoadedBatch(held, dict(read), bad, changed)

    def _samples(
        self, task: BatchTask, tiler: Tiler
    ) -> tuple[list[Sample | QuarantinedRecord], tuple[str, ...]]:
        """Each draw's sample or bad record, and the sources that have changed.

        All records are read, then all images: pixels drive the code that reads records out of
        the processor's caches, and taking turns made that code half as fast.
        """
        draws = list(chain.from_iterable(task.packs))
        with Limit(self._timeout) as limit:
            drafts = [self._draft(task.step, draw, limit) for draw in draws]
            samples = [
                self._sample(task.step, *pair, limit, tiler)
                for pair in zip(draws, drafts, strict=True)
            ]
        changed = {
            draw.source
            for draw, draft in zip(draws, drafts, strict=True)
            if self._has_changed(draw, draft)
        }
        return samples, tuple(sorted(changed))

    def _has_changed(self, draw: Drawn, draft: Draft | QuarantinedRecord) -> bool:
        """Whether a record takes another number of tokens than was planned; a bad one counts as
        changed only if that is why it is bad.
        """
        if isinstance(draft, QuarantinedRecord):
            return draft.kind == CHANGED
        # Shorter than planned still fits its pack; it is reported, and the next start measures
        # anew.
        return min(draft.whole, self._processor.longest) != draw.tokens

    def _draft(self, step: int, draw: Drawn, limit: Limit) -> Draft | QuarantinedRecord:
        """The record of a draw as tokens."""
        # A list, as the name must outlive an error after the record was read: `limit` ends the
        # call.
        names: list[str] = []
        try:
            return limit.call(self._read, draw, names, undo=names.clear)
        except UNUSABLE as error:
            return self._bad(step, draw, "".join(names), error)

    def _read(self, draw: Drawn, names: list[str]) -> Draft:
        record = self._sources[draw.source][draw.position]
        names.append(record.id)
        draft = self._processor.draft(draw.source, record, most_tiles=self._tiles)
        _check_planned(len(draft), draw)
        return draft

    def _sample(
        self, step: int, draw: Drawn, draft: Draft | QuarantinedRecord, limit: Limit, tiler: Tiler
    ) -> Sample | QuarantinedRecord:
        """The draft with its tiles; an image that several of a task's records show is decoded
        once.
        """
        if isinstance(draft, QuarantinedRecord):
            return draft
        used = tiler.used
        try:
            finish = self._processor.finish
            return limit.call(finish, draft, tiler, undo=lambda: tiler.give_back(used))
        except UNUSABLE as error:
            # Tiles of images before the damaged one would leave a hole in the batch.
            tiler.give_back(used)
            return self._bad(step, draw, draft.record.id, error)

    def _bad(self, step: int, draw: Drawn, name: str, error: BaseException) -> QuarantinedRecord:
        place = place_of(self._sources[draw.source], draw.position)
        return quarantined(
            bad_record(draw.source, draw.position, error, name=name, place=place), step
        )


def _check_planned(tokens: int, draw: Drawn) -> None:
    """DataError for a record with more tokens than were measured: its pack has no place for
    them.
    """
    if tokens > draw.tokens:
        raise DataError(
            f"found {tokens} tokens where {draw.tokens} were measured, so it does not fit its"
            " pack; it is left out until the source is measured again, which the next start"
            " does, also with --resume. An index that counts tokens is made again with"
            " `sailvit data index DIR --recipe R --force`",
            kind=CHANGED,
        )
