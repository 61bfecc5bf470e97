"""The loader: a stage's steps, packed and decoded, with a cursor from which they continue exactly.

Every rank and worker plans all packs from lengths (tokenizing is cheap) and decodes only its own, so packs do not
depend on the number of ranks or workers.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from sailvit.core.batch import Step
from sailvit.core.errors import DataError
from sailvit.core.records import Sample, Source
from sailvit.data.feed import Feed
from sailvit.data.order import Draw, Stream
from sailvit.data.packing import Packer, collate
from sailvit.data.samples import Draft, SampleBuilder

_PREFETCH = 2
"""Steps that each worker prepares ahead."""


@dataclass
class _Place:
    """Where planning stands; with the pending draws it is the cursor."""

    drawn: dict[str, int]
    """Draws per source."""
    steps: int = 0
    """Global steps planned."""
    packs: int = 0
    """Packs in them."""
    samples: int = 0
    """Samples in them."""
    tokens: int = 0
    """Tokens in them, without padding."""


@dataclass(frozen=True)
class _Planned:
    """A drawn record in the packer's buffer."""

    draw: Draw
    """Which draw it was."""
    name: str
    """How errors call it."""
    draft: Draft
    """The record as tokens."""

    def __len__(self) -> int:
        return len(self.draft)


class Loader:
    """Iterates over this rank's steps; `load` a cursor first to continue after the step that carried it."""

    def __init__(self, sources: Mapping[str, Source], builder: SampleBuilder, feed: Feed) -> None:
        if feed.global_batch % feed.world:
            raise DataError(
                f"global_batch {feed.global_batch} cannot be dealt equally to {feed.world} ranks; make it a multiple"
            )
        self._feed = feed
        self._steps = _Steps(sources, builder, feed)

    def load(self, cursor: Mapping[str, Any]) -> None:
        """Continue after the step with this cursor, also on another number of ranks or workers."""
        expected = _identity(self._feed)
        found = {key: cursor.get(key) for key in expected}
        if found != expected:
            raise DataError(
                f"the cursor was written by {found}, not by {expected}; resume with the recipe that wrote it"
            )
        self._steps.cursor = dict(cursor)

    def __iter__(self) -> Iterator[Step]:
        """The steps from the cursor on; leaving the loop ends the workers."""
        if not self._feed.workers:
            yield from self._steps.part(0, 1)
            return
        workers = DataLoader(
            self._steps,
            batch_size=None,
            num_workers=self._feed.workers,
            prefetch_factor=_PREFETCH,
            worker_init_fn=_start_worker,
        )
        for step in workers:
            if isinstance(step, DataError):
                raise step
            yield step


class _Steps(IterableDataset[Step | DataError]):
    """The plan of all packs, and the decoding of one rank's and one worker's part of them."""

    def __init__(self, sources: Mapping[str, Source], builder: SampleBuilder, feed: Feed) -> None:
        self.cursor: dict[str, Any] | None = None
        self._sources = sources
        self._builder = builder
        self._feed = feed
        sizes = {name: len(sources[name]) for name in feed.shares}
        self._stream = Stream(sizes, feed.shares, seed=feed.seed, name=feed.name)

    def __iter__(self) -> Iterator[Step | DataError]:
        """The worker's steps; errors of the data travel as values, since DataLoader would bury them in a traceback."""
        worker = get_worker_info()
        try:
            yield from self.part(worker.id, worker.num_workers) if worker else self.part(0, 1)
        except DataError as error:
            yield error

    def part(self, number: int, count: int) -> Iterator[Step]:
        """Every `count`-th step from the `number`-th on; DataLoader takes from workers in turn, so order is kept."""
        feed, padding_id = self._feed, self._builder.padding_id
        for index, (packs, cursor) in enumerate(self._plan()):
            if index % count == number:
                packs += [[] for _ in range(-len(packs) % feed.world)]
                own = [[self._sample(item) for item in pack] for pack in packs[feed.rank :: feed.world]]
                chunks = [own[at : at + feed.micro_batch] for at in range(0, len(own), feed.micro_batch)]
                yield Step(tuple(collate(chunk, padding_id=padding_id) for chunk in chunks), cursor)

    def _plan(self) -> Iterator[tuple[list[list[_Planned]], dict[str, Any]]]:
        """The packs of every global step, with the cursor after it."""
        place, packer = self._start()
        while True:
            packs: list[list[_Planned]] = []
            while len(packs) < self._feed.global_batch and self._refill(place, packer):
                packs.append(packer.take())
            if not packs:
                return
            place.steps += 1
            place.packs += len(packs)
            place.samples += sum(map(len, packs))
            place.tokens += sum(len(item.draft) for pack in packs for item in pack)
            pending = [[*item.draw] for item in packer.pending]
            yield packs, {**_identity(self._feed), **asdict(place), "pending": pending}

    def _start(self) -> tuple[_Place, Packer[_Planned]]:
        """Where the cursor stands, its pending draws made again; the beginning without one."""
        place, packer = _Place(dict.fromkeys(self._feed.shares, 0)), Packer[_Planned](self._feed.sequence)
        if cursor := self.cursor:
            place = _Place(**{field.name: cursor[field.name] for field in fields(_Place)})
            place.drawn = dict(place.drawn)
            for source, nth in cursor["pending"]:
                packer.add(self._draft(Draw(source, nth)))
        return place, packer

    def _refill(self, place: _Place, packer: Packer[_Planned]) -> bool:
        """Draw until the packer has its fill or the feed ends; whether anything is pending."""
        limit = self._feed.samples
        while packer.hungry and (limit is None or sum(place.drawn.values()) < limit):
            draw = self._stream.next(place.drawn)
            place.drawn[draw.source] += 1
            packer.add(self._draft(draw))
        return packer.tokens > 0

    def _draft(self, draw: Draw) -> _Planned:
        position = self._stream.position(draw)
        with _naming(f"record {position} of source {draw.source}"):
            record = self._sources[draw.source][position]
        name = f"record {position} ({record.id}) of source {draw.source}"
        with _naming(name):
            return _Planned(draw, name, self._builder.draft(draw.source, record))

    def _sample(self, planned: _Planned) -> Sample:
        with _naming(planned.name):
            return self._builder.finish(planned.draft)


def _identity(feed: Feed) -> dict[str, Any]:
    """What must be the same for a cursor to continue a feed."""
    return {"name": feed.name, "seed": feed.seed, "sequence": feed.sequence, "shares": dict(feed.shares)}


@contextmanager
def _naming(record: str) -> Iterator[None]:
    """Say which record a DataError is about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{record}: {error}") from error


def _start_worker(_: int) -> None:
    """One thread, as loaders share the cores with training; Ctrl-C is the main process's to answer."""
    torch.set_num_threads(1)
    # Not an open file per tensor: large steps would run into the limit of open files.
    torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
