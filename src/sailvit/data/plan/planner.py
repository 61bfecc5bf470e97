"""The planner: the packs of every step, and the cursor from which they continue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sailvit.core.errors import DataError
from sailvit.data.feed import Feed
from sailvit.data.index.costs import Costs
from sailvit.data.plan.draws import Drawn, Draws
from sailvit.data.plan.packer import Packer


@dataclass(frozen=True)
class PlannedStep:
    """The packs of one global step; the same whatever the number of ranks."""

    packs: tuple[tuple[Drawn, ...], ...]
    """`global_batch` of them; fewer in the last step of a feed that ends."""
    cursor: dict[str, Any]
    """JSON state after this step; `Plan.steps` continues from it with the next one."""


class Plan:
    """Which records make which pack of which step: a function of the feed and of what records cost."""

    def __init__(self, feed: Feed, costs: Mapping[str, Costs]) -> None:
        self._feed = feed
        self._draws = Draws(feed, costs)
        self._identity = _identity(feed, costs)

    def steps(self, cursor: Mapping[str, Any] | None = None) -> Iterator[PlannedStep]:
        """The steps after the one that carried `cursor`, or all; a cursor of another feed is refused."""
        if cursor is not None:
            self._check(cursor)
        return self._steps(cursor or self._beginning())

    def _steps(self, cursor: Mapping[str, Any]) -> Iterator[PlannedStep]:
        drawn = dict(cursor["drawn"])
        counts = {name: cursor[name] for name in _COUNTS}
        packer = Packer(self._feed.sequence, self._feed.tiles, self._draws.again(cursor["pending"]))
        draws = self._counted(drawn)
        while packs := self._packs(packer, draws):
            counts["steps"] += 1
            counts["packs"] += len(packs)
            counts["samples"] += sum(map(len, packs))
            counts["tokens"] += sum(draw.tokens for pack in packs for draw in pack)
            counts["tiles"] += sum(draw.tiles for pack in packs for draw in pack)
            yield PlannedStep(packs, {**self._identity, **counts, "drawn": dict(drawn), "pending": packer.pending})

    def _packs(self, packer: Packer, draws: Iterator[Drawn]) -> tuple[tuple[Drawn, ...], ...]:
        taken = (packer.take(draws) for _ in range(self._feed.global_batch))
        return tuple(pack for pack in taken if pack)

    def _counted(self, drawn: dict[str, int]) -> Iterator[Drawn]:
        """The draws after `drawn`, which is kept up to date."""
        for draw in self._draws.after(drawn):
            drawn[draw.source] = draw.nth + 1
            yield draw

    def _beginning(self) -> dict[str, Any]:
        return {**dict.fromkeys(_COUNTS, 0), "drawn": dict.fromkeys(self._feed.shares, 0), "pending": {}}

    def _check(self, cursor: Mapping[str, Any]) -> None:
        for key, expected in self._identity.items():
            if (found := cursor.get(key)) != expected:
                raise DataError(
                    f"the cursor was written with {key} {found}; expected {expected}: resume with the recipe and the"
                    " data that wrote it, or start the stage anew"
                )


_COUNTS = ("steps", "packs", "samples", "tokens", "tiles")


def _identity(feed: Feed, costs: Mapping[str, Costs]) -> dict[str, Any]:
    """What must be the same for a cursor to continue a feed."""
    return {
        "name": feed.name,
        "seed": feed.seed,
        "sequence": feed.sequence,
        "shares": dict(feed.shares),
        "pack_tiles": feed.tiles,
        "window": feed.window,
        "caps": dict(feed.caps),
        "records": {name: len(costs[name]) for name in feed.shares},
    }
