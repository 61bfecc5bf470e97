"""The loader: a stage's steps, planned in this process and read in others, with a cursor to continue from exactly."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader

from sailvit.core.batch import Step
from sailvit.core.errors import DataError
from sailvit.core.records import Source
from sailvit.data.feed import Feed
from sailvit.data.index.costs import Costs
from sailvit.data.plan.balance import deal
from sailvit.data.plan.planner import Plan
from sailvit.data.reading.quarantine import BadRecord, Quarantine
from sailvit.data.reading.reader import Reader, Reading, Task
from sailvit.data.reading.workers import naming_deaths, start_worker
from sailvit.data.samples import SampleBuilder

_Planned = deque[tuple[int, dict[str, Any]]]
"""For every step that is planned and not read yet: the number of its batches, and the cursor after it."""
_Value = TypeVar("_Value")


class Loader:
    """Iterates over this rank's steps; `load` a cursor first to continue after the step that carried it.

    All ranks plan the same packs from the costs; each reads its own, one batch per task, so that several workers share
    one step. A record that cannot be read is left out of its pack and reported; nothing else moves.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        costs: Mapping[str, Costs],
        builder: SampleBuilder,
        feed: Feed,
        *,
        report: Callable[[BadRecord], None] = lambda bad: None,
        prefetch: int | None = None,
    ) -> None:
        if feed.global_batch % feed.world:
            raise DataError(
                f"global_batch {feed.global_batch} cannot be dealt equally to {feed.world} ranks; make it a multiple"
            )
        self._feed = feed
        self._plan = Plan(feed, costs)
        self._reader = Reader(sources, builder, tiles=feed.tiles, timeout=feed.quarantine.timeout)
        self._report = report
        self._prefetch = prefetch
        self._cursor: dict[str, Any] | None = None

    def load(self, cursor: Mapping[str, Any]) -> None:
        """Continue after the step with this cursor, also on another number of ranks or workers."""
        self._plan.steps(cursor)
        self._cursor = dict(cursor)

    def __iter__(self) -> Iterator[Step]:
        """The steps from the cursor on; leaving the loop ends the workers."""
        planned: _Planned = deque()
        readings = iter(self._readings(planned))
        quarantine = Quarantine(self._feed.quarantine, self._report)
        try:
            with naming_deaths():
                while batches := self._next(readings, planned):
                    cursor = planned.popleft()[1]
                    for reading in batches:
                        quarantine.take(reading.read, reading.bad)
                    quarantine.check()
                    yield Step(tuple(reading.batch for reading in batches), cursor)
            quarantine.close()
        finally:
            # The traceback of an error would keep it, and with it the workers.
            del readings

    def _next(self, readings: Iterator[Reading], planned: _Planned) -> list[Reading]:
        """The batches of the next step; none after the last."""
        first = list(islice(readings, 1))
        return first + list(islice(readings, planned[0][0] - 1)) if first else []

    def _readings(self, planned: _Planned) -> DataLoader[Reading]:
        workers = self._feed.workers
        batches = -(-self._feed.global_batch // (self._feed.world * self._feed.micro_batch))
        # One step ahead, so that it is read while the one before trains.
        ahead = self._prefetch or max(2, -(-batches // max(1, workers)))
        return DataLoader(
            self._reader,
            sampler=self._tasks(planned),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=workers,
            prefetch_factor=ahead if workers else None,
            worker_init_fn=start_worker,
            pin_memory=torch.cuda.is_available(),
            # Its own, as DataLoader would draw a number from the global one that training uses.
            generator=torch.Generator(),
        )

    def _tasks(self, planned: _Planned) -> Iterator[Task]:
        """The tasks of this rank, ahead of what is trained on; cursors go another way, as no worker needs them."""
        size = self._feed.micro_batch
        for step in self._plan.steps(self._cursor):
            own = deal(step.packs, self._feed.world)[self._feed.rank]
            chunks = [tuple(own[at : at + size]) for at in range(0, len(own), size)]
            planned.append((len(chunks), step.cursor))
            yield from (Task(step.cursor["steps"], chunk) for chunk in chunks)


def _as_it_is(value: _Value) -> _Value:
    return value
