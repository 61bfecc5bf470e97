"""Draws: the endless, blended, shuffled stream of records, and what each takes in a pack."""

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
"""Draws planned at once; numpy wants about a thousand to be cheap, and no result depends on
it."""


class Drawn(NamedTuple):
    """One draw, and what it takes in a pack."""

    source: str
    """Name of the source."""
    nth: int
    """How many draws of that source came before; so `nth // len(source)` is the epoch."""
    position: int
    """The record it means."""
    tokens: int
    """Tokens, placeholders included; a record longer than a pack takes all of one, and its
    reader cuts it."""
    tiles: int
    """Tiles, at most the pack's budget; the reader drops images that go beyond it, as it drops
    text."""


class Draws:
    """The loader config's stream of draws; any part of it can be made again from the number of
    draws per source.
    """

    def __init__(
        self, loader_config: LoaderConfig, costs: Mapping[str, Costs], block: int = _BLOCK
    ) -> None:
        self._blend = Blend(loader_config.shares, loader_config.caps)
        self._limit = loader_config.samples
        self._block = block
        self._reels = [_Reel(name, costs[name], loader_config) for name in self._blend.sources]

    def after(self, drawn: Mapping[str, int]) -> Iterator[Drawn]:
        """The draws that follow `drawn` draws per source, up to the loader config's number of
        samples.
        """
        left = None if self._limit is None else max(0, self._limit - sum(drawn.values()))
        return islice(self._endless(drawn), left)

    def again(self, pending: Mapping[str, Sequence[int]]) -> list[Drawn]:
        """The draws with these numbers per source, in the order in which they were drawn."""
        made: list[tuple[float, int, Drawn]] = []
        for index, reel in enumerate(self._reels):
            nths = np.array(pending.get(reel.source, ()), dtype=np.int64)
            made += (
                (self._blend.due(index, draw.nth), index, draw)
                for draw in _draws(repeat(reel.source), reel.read(nths))
            )
        return [draw for *_, draw in sorted(made)]

    def coming(self, source: str, nth: int) -> tuple[list[int], int]:
        """The shards of the window that a source's draw `nth` is from and of the next, and the
        draw to ask again at.

        Shards that training will hardly come to are left out.
        """
        index = self._blend.sources.index(source)
        now, then, border = self._reels[index].order.coming(nth)
        return now + (then if border < self._blend.most(index, self._limit) else []), border

    def _endless(self, drawn: Mapping[str, int]) -> Iterator[Drawn]:
        counts = {source: drawn[source] for source in self._blend.sources}
        while True:
            ranges, order = self._blend.next(counts, self._block)
            if not len(order):
                return
            owners = np.repeat(np.arange(len(ranges)), [len(nths) for nths in ranges])[order]
            reels = zip(self._reels, ranges, strict=True)
            values = np.concatenate(
                [reel.ahead(nths, self._block) for reel, nths in reels], axis=1
            )[:, order]
            yield from _draws([self._blend.sources[owner] for owner in owners], values)
            for source, count in zip(
                counts, np.bincount(owners, minlength=len(ranges)), strict=True
            ):
                counts[source] += int(count)


class _Reel:
    """The draws of one source with their costs, looked up a block ahead of their use."""

    def __init__(self, source: str, costs: Costs, loader_config: LoaderConfig) -> None:
        if not len(costs):
            raise DataError(
                f"source {source} has no records; check its path, or leave it out of the mixture"
            )
        self.source = source
        self._costs = costs
        self._most = loader_config.sequence, loader_config.tiles
        self.order = DrawOrder(
            costs.shards,
            loader_config.window,
            derive_seed(loader_config.seed, loader_config.name, "order", source),
        )
        self._start = 0
        self._ahead = self.read(np.arange(0))

    def read(self, nths: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[4, n]: the draws' numbers int64[n] again, their positions, tokens and tiles."""
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

    def ahead(self, nths: range, block: int) -> NDArray[np.int64]:
        """The same for draws in a row; reads at least a block, and again only once that is used
        up.
        """
        if nths.start < self._start or nths.stop > self._start + self._ahead.shape[1]:
            self._start = nths.start
            self._ahead = self.read(np.arange(nths.start, max(nths.stop, nths.start + block)))
        return self._ahead[:, nths.start - self._start : nths.stop - self._start]


def _draws(sources: Iterable[str], values: NDArray[np.int64]) -> Iterator[Drawn]:
    return map(Drawn._make, zip(sources, *values.tolist(), strict=False))
