"""The loader: a stage's steps, planned in this process, read by workers, and continued exactly
from a cursor.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from itertools import islice
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader

from sailvit.core.bad_records import QuarantinedRecord
from sailvit.core.batch import Step
from sailvit.core.errors import DataError
from sailvit.core.records import Fetched, Source
from sailvit.data.lengths.costs import Costs
from sailvit.data.loading.prefetch import Prefetch
from sailvit.data.loading.quarantine import Quarantine
from sailvit.data.loading.reader import BatchReader, BatchTask, LoadedBatch
from sailvit.data.loading.shared_memory import SharedMemory
from sailvit.data.loading.workers import naming_deaths, start_worker
from sailvit.data.processing.processor import Processor
from sailvit.data.sampling.balance import deal
from sailvit.data.sampling.loader_config import LoaderConfig
from sailvit.data.sampling.planner import PackPlan

_Planned = deque[tuple[int, dict[str, Any]]]
"""For every step that is planned but not read yet: its number of batches, and the cursor after
it."""
_Value = TypeVar("_Value")

_FORKS = sys.platform == "linux"
"""Whether workers are forked, and so share memory that was made before."""
_BYTES_PER_TOKEN = 64
"""Four int64 take 32; the rest is for at most three numbers per image or boundary, of which
there are fewer than tokens."""


class Loader:
    """Iterates over this rank's steps, from the start or from the cursor given to `load`.

    All ranks plan the same packs from the costs; each reads its own, one batch per task, so
    that several workers share a step. A record that cannot be read is left out of its pack and
    given to `report`; no other record moves. `changed` gets the name of a source when one of
    its records differs from what was measured.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        costs: Mapping[str, Costs],
        processor: Processor,
        loader_config: LoaderConfig,
        *,
        report: Callable[[QuarantinedRecord], None] = lambda bad: None,
        changed: Callable[[str], None] = lambda source: None,
        prefetch: int | None = None,
    ) -> None:
        if loader_config.global_batch % loader_config.world:
            raise DataError(
                f"global_batch {loader_config.global_batch} cannot be dealt equally to"
                f" {loader_config.world} ranks; make it a multiple"
            )
        self._loader_config = loader_config
        self._plan = PackPlan(loader_config, costs)
        self._sources = sources
        self._processor = processor
        self._report = report
        self._changed = changed
        self._prefetch = prefetch
        self._cursor: dict[str, Any] | None = None

    def load(self, cursor: Mapping[str, Any]) -> None:
        """Continue after the step with this cursor; ranks and workers may be other numbers."""
        self._plan.steps(cursor)
        self._cursor = dict(cursor)

    def __iter__(self) -> Iterator[Step]:
        """The steps from the cursor on; the next one is made while one is used. Leaving the
        loop ends the workers.
        """
        planned: _Planned = deque()
        quarantine = Quarantine(self._loader_config.quarantine, self._report)
        steps = self._steps(iter(self._readings(planned)), planned)
        # Without workers records are read here, and their time limit, a signal, needs the main
        # thread.
        prefetch = Prefetch(steps) if self._loader_config.workers else nullcontext(steps)
        # Workers end with the last reference to their iterator: only `prefetch` may hold one.
        del steps
        with naming_deaths(), prefetch as made:
            for step, readings in made:
                for reading in readings:
                    quarantine.take(reading.read, reading.bad)
                    for source in reading.changed:
                        self._changed(source)
                # Before the step is used, so that a run stops after the one before.
                quarantine.check()
                yield step
        quarantine.close()

    def _steps(
        self, readings: Iterator[LoadedBatch], planned: _Planned
    ) -> Iterator[tuple[Step, list[LoadedBatch]]]:
        """The steps, each with the loaded batches that report on its records."""
        for reading in readings:
            count, cursor = planned.popleft()
            parts = [reading, *islice(readings, count - 1)]
            yield Step(tuple(part.batch for part in parts), cursor), parts

    def _readings(self, planned: _Planned) -> DataLoader[LoadedBatch]:
        loader_config = self._loader_config
        batches = -(
            -loader_config.global_batch // (loader_config.world * loader_config.micro_batch)
        )
        # Per worker: at least a whole step, so that it is read while the one before trains.
        prefetch = self._prefetch or max(2, -(-batches // max(1, loader_config.workers)))
        # Beside the batches on their way, the step in training and the next one hold slots, and
        # a third step does while training changes from one to the other.
        memory = (
            SharedMemory(prefetch * loader_config.workers + 3 * batches, self._most_bytes())
            if loader_config.workers and _FORKS
            else None
        )
        reader = BatchReader(
            self._sources,
            self._processor,
            memory=memory,
            tiles=loader_config.tiles,
            timeout=loader_config.quarantine.timeout,
        )
        return DataLoader(
            reader,
            sampler=self._tasks(planned, memory),
            # A task is a whole batch: DataLoader should neither draw nor join anything.
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=loader_config.workers,
            # Anonymous memory can be inherited, and not sent.
            multiprocessing_context="fork" if memory else None,
            prefetch_factor=prefetch if loader_config.workers else None,
            worker_init_fn=start_worker,
            pin_memory=torch.cuda.is_available(),
            # DataLoader draws a seed when it starts, by default from the global generator,
            # whose numbers training uses.
            generator=torch.Generator(),
        )

    def _most_bytes(self) -> int:
        """Most bytes of a batch: as many tiles as its tokens allow, and integers per token."""
        layout, tokens = (
            self._processor.layout,
            self._loader_config.sequence * self._loader_config.micro_batch,
        )
        return (
            (tokens // layout.tokens_per_tile) * 3 * layout.tile_size**2
            + _BYTES_PER_TOKEN * tokens
            + 4096
        )

    def _tasks(self, planned: _Planned, memory: SharedMemory | None) -> Iterator[BatchTask]:
        """The tasks of this rank, planned before their steps train. Cursors go to `planned`, as
        workers do not need them.
        """
        size = self._loader_config.micro_batch
        due = dict.fromkeys(self._sources if self._loader_config.window else (), 0)
        for step in self._plan.steps(self._cursor):
            self._fetch(step.cursor["drawn"], due)
            own = deal(step.packs, self._loader_config.world)[self._loader_config.rank]
            chunks = [tuple(own[at : at + size]) for at in range(0, len(own), size)]
            planned.append((len(chunks), step.cursor))
            for chunk in chunks:
                yield BatchTask(step.cursor["steps"], chunk, memory.claim() if memory else None)

    def _fetch(self, drawn: Mapping[str, int], due: dict[str, int]) -> None:
        """Begin to fetch a window's shards and the next one's, once its draws have begun."""
        for name in [name for name, nth in due.items() if drawn.get(name, -1) >= nth]:
            source = self._sources[name]
            if isinstance(source, Fetched):
                shards, due[name] = self._plan.coming(name, drawn[name])
                source.fetch(shards)


def _as_it_is(value: _Value) -> _Value:
    return value
