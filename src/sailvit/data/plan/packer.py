"""The packer: a bounded buffer of draws from which packs are filled, by tokens and evenly by tiles."""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from itertools import islice

from sailvit.data.plan.draws import Drawn

PENDING = 256
"""Draws to choose from; more fill packs better, and every one is in the cursor."""

_SLACK = 0.02
"""Share of a pack that may stay empty before a pack takes more than its even share of tiles."""

_Key = tuple[int, int, int]
"""Tiles, tokens, and minus the age, so that the older of two alike stands behind and is taken first."""


class Packer:
    """Takes packs from the draws that are pending: the oldest first, so that none starves, then what fits best.

    Fitting best is most tiles, then most tokens: images first, and texts fill what they leave. A pack takes its even
    share of the pending tiles, so that all packs of a step cost the tower alike; more only when it would stay empty.
    """

    def __init__(self, sequence: int, tiles: int | None, pending: Iterable[Drawn] = ()) -> None:
        self._sequence = sequence
        self._budget = sys.maxsize if tiles is None else tiles
        self._waiting: dict[int, Drawn] = {}
        self._sorted: list[_Key] = []
        self._tokens = self._tiles = self._count = 0
        for draw in pending:
            self._add(draw)

    @property
    def pending(self) -> dict[str, list[int]]:
        """The draws not packed yet, as numbers per source."""
        numbers: dict[str, list[int]] = {}
        for draw in self._waiting.values():
            numbers.setdefault(draw.source, []).append(draw.nth)
        return numbers

    def take(self, draws: Iterator[Drawn]) -> tuple[Drawn, ...]:
        """The next pack, drawing on `draws` to keep the buffer full; empty when both have run out."""
        self._refill(draws)
        if not self._waiting:
            return ()
        age, oldest = next(iter(self._waiting.items()))
        even = self._sequence * self._tiles // max(1, self._tokens)
        pack = [self._remove((oldest.tiles, oldest.tokens, -age))]
        room, tiles = self._sequence - oldest.tokens, oldest.tiles
        for most in (min(even, self._budget), self._budget):
            while key := self._best(room, most - tiles):
                pack.append(self._remove(key))
                room, tiles = room - key[1], tiles + key[0]
                self._refill(draws)
            if room < _SLACK * self._sequence:
                break
        return tuple(pack)

    def _best(self, room: int, tiles: int) -> _Key | None:
        """The pending draw of most tiles, and of those most tokens, that fits."""
        while tiles >= 0:
            at = bisect_right(self._sorted, (tiles, room, 1))
            if not at:
                return None
            key = self._sorted[at - 1]
            if key[1] <= room:
                return key
            tiles = key[0]
        return None

    def _refill(self, draws: Iterator[Drawn]) -> None:
        for draw in islice(draws, PENDING - len(self._waiting)):
            self._add(draw)

    def _add(self, draw: Drawn) -> None:
        self._waiting[self._count] = draw
        insort(self._sorted, (draw.tiles, draw.tokens, -self._count))
        self._count += 1
        self._tokens += draw.tokens
        self._tiles += draw.tiles

    def _remove(self, key: _Key) -> Drawn:
        tiles, tokens, age = key
        del self._sorted[bisect_left(self._sorted, key)]
        self._tokens -= tokens
        self._tiles -= tiles
        return self._waiting.pop(-age)
