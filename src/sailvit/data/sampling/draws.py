"""Draws: the blended, shuffled stream of records, and what each record takes in a pack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sailvit.core.errors import DataError
from sailvit.core.seeding import derive_seed
from sailvit.data.lengths.costs import Costs
from sailvit.data.sampling.blend import Blend
from sailvit.data.sampling.loader_config import LoaderConfig
from sailvit.data.sampling.order import DrawOrder

_BLOCK = 2048
"""Draws planned at once: numpy is cheap from about a thousand on. No result depends on it."""


class Drawn(NamedTuple):
    """One draw, and what it takes in a pack."""

    source: str
    """Name of the source."""
    nth: int
    """Number of that source's draws before this one; `nth // len(source)` is the epoch."""
    position: int
    """Position of the record in its source."""
    tokens: int
    """Tokens, placeholders included, at most a pack's: the reader cuts longer records."""
    tiles: int
    """Tiles, at most a pack's budget: the reader drops images beyond it."""


class Draws:
    """The stream of draws that a loader config gives; any part of it can be made again from the
    number of draws per source.
    """

    def __init__(
        self, loader_config: LoaderConfig, costs: Mapping[str, Costs], block: int = _BLOCK
    ) -> None:
        self._blend = Blend(loader_config.shares, loader_config.caps)
        self._limit = loader_config.samples
        self._block = block
        self._by_source = [
            _SourceDraws(name, costs[name], loader_config) for name in self._blend.sources
        ]

    def after(self, drawn: Mapping[str, int]) -> Iterator[Drawn]:
        """The draws that follow `drawn` draws per source, up to the loader config's number of
        samples.
        """
        # The limit counts draws from the stage's start, so those before a resume count too.
        left = None if self._limit is None else max(0, self._limit - sum(drawn.values()))
        return islice(self._endless(drawn), left)

    def again(self, pending: Mapping[str, Sequence[int]]) -> list[Drawn]:
        """The draws with these numbers per source, in the order in which they were drawn."""
        # Sorted as the blend orders them: by due time, and between equal ones by source.
        made: list[tuple[float, int, Drawn]] = []
        for index, own in enumerate(self._by_source):
            nths = np.array(pending.get(own.source, ()), dtype=np.int64)
            made += (
                (self._blend.due(index, draw.nth), index, draw)
                for draw in _draws(repeat(own.source), own.read(nths))
            )
        return [draw for *_, draw in sorted(made)]

    def tokens(self) -> int | None:
        """Tokens of all draws, where every source has a limit; None where one has none."""
        given = [own.tokens() for own in self._by_source]
        known = [tokens for tokens in given if tokens is not None]
        return sum(known) if len(known) == len(given) else None

    def coming(self, source: str, nth: int) -> tuple[list[int], int]:
        """The shards of the window that a source's draw `nth` is in and of the next window, and
        the first draw of that, at which to ask again.

        The next window's are left out if training ends before it, by its share of the draws.
        """
        index = self._blend.sources.index(source)
        now, then, border = self._by_source[index].order.coming(nth)
        return now + (then if border < self._blend.most(index, self._limit) else []), border

    def _endless(self, drawn: Mapping[str, int]) -> Iterator[Drawn]:
        counts = {source: drawn[source] for source in self._blend.sources}
        while True:
            ranges, order = self._blend.next(counts, self._block)
            if not len(order):
                return
            owners = np.repeat(np.arange(len(ranges)), [len(nths) for nths in ranges])[order]
            pairs = zip(self._by_source, ranges, strict=True)
            blocks = [own.ahead(nths, self._block) for own, nths in pairs]
            values = np.concatenate(blocks, axis=1)[:, order]
            yield from _draws([self._blend.sources[owner] for owner in owners], values)
            for source, count in zip(
                counts, np.bincount(owners, minlength=len(ranges)), strict=True
            ):
                counts[source] += int(count)


class _SourceDraws:
    """The draws of one source with their costs, looked up in blocks before they are used."""

    def __init__(self, source: str, costs: Costs, loader_config: LoaderConfig) -> None:
        if not len(costs):
            raise DataError(
                f"source {source} has no records; check its path, or leave it out of the mixture"
            )
        self.source = source
        self._costs = costs
        self._most = loader_config.sequence, loader_config.tiles
        self._cap = loader_config.caps.get(source)
        self.order = DrawOrder(
            costs.shards,
            loader_config.window,
            derive_seed(loader_config.seed, loader_config.name, "order", source),
        )
        self._start = 0
        self._ahead = self.read(np.arange(0))

    def read(self, nths: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[4, n]: number, position, tokens and tiles of the draws `nths`, int64[n]."""
        positions = self.order.positions(nths)
        tokens, tiles = self._costs.at(positions)
        sequence, budget = self._most
        return np.stack(
            [
                nths,
                positions,
                np.minimum(tokens, sequence),
                tiles if budget is None else np.minimum(tiles, budget),
            ]
        )

    def tokens(self) -> int | None:
        """Tokens of all draws up to the source's limit; None without one."""
        if self._cap is None:
            return None
        size = len(self._costs)
        whole = self._cap // size
        # An epoch holds every record once, so that only the last one's order counts.
        epoch = sum(map(self._cut, _blocks(0, size))) if whole else 0
        rest = map(self.order.positions, _blocks(whole * size, self._cap))
        return whole * epoch + sum(map(self._cut, rest))

    def _cut(self, positions: NDArray[np.int64]) -> int:
        """Tokens of the records at int64[n], each at most a pack's."""
        return int(np.minimum(self._costs.at(positions)[0], self._most[0]).sum(dtype=np.int64))

    def ahead(self, nths: range, block: int) -> NDArray[np.int64]:
        """`read` for consecutive draws; reads at least a block, and the next one only when that
        is used up.
        """
        if nths.start < self._start or nths.stop > self._start + self._ahead.shape[1]:
            self._start = nths.start
            self._ahead = self.read(np.arange(nths.start, max(nths.stop, nths.start + block)))
        return self._ahead[:, nths.start - self._start : nths.stop - self._start]


def _blocks(start: int, stop: int) -> Iterator[NDArray[np.int64]]:
    return (np.arange(at, min(at + _BLOCK, stop)) for at in range(start, stop, _BLOCK))


def _draws(sources: Iterable[str], values: NDArray[np.int64]) -> Iterator[Drawn]:
    return map(Drawn._make, zip(sources, *values.tolist(), strict=False))
