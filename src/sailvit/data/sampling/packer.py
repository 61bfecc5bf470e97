"""The packer: fills packs from a bounded buffer of draws, nearly full and with about equal
numbers of tiles.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from sailvit.data.sampling.draws import Drawn

PENDING = 56
"""Draws to choose from. More would fill packs better, but short texts would go into packs
before their turn: with three records in a pack, 64 already move a blend of 1000 packs by half a
percent."""

_CHOSEN = 0.3
"""Share of a pack that is chosen to fit. Before it the oldest draws are taken, as those that
fit badly would pile up."""

_TRIES = 12
"""Draws that are tried with their best partners to end a pack."""

_NEAR = 3
"""Partners that are compared: the longest of those that fit."""

_CLOSE = 0.005
"""A pack is full when less than this share of it is empty."""

_TILE = 1.0
"""Cost of a tile off the even share, in mean tokens per tile left empty. With a quarter, packs
would be no fuller at 8192 tokens (half a percent at 4096), and the heaviest of eight would be
6.6 % above their mean instead of 4.8 %."""

_Key = tuple[int, int, int]
"""Tokens and tiles of a draw, and its number, negative, so that of equal draws the oldest is
sorted last, where partners are taken from."""

_NOBODY: _Key = (0, 0, 1)
"""No draw, in the place of a partner."""


@dataclass
class _Open:
    """A pack that is being filled."""

    room: int
    """Tokens left."""
    even: float
    """Tiles left of its even share; below 0 when it has more."""
    most: int
    """Tiles left of the budget."""
    draws: list[Drawn] = field(default_factory=list)
    """What it holds."""


class Packer:
    """Makes packs from pending draws: the oldest go first, so that none waits for ever, and a
    chosen end fills the pack.

    An end is one or two draws. Of those tried, the best leaves the fewest tokens empty and
    brings the pack nearest to its even share of all pending tiles, so that a step's packs cost
    the tower about the same.
    """

    def __init__(self, sequence: int, tiles: int | None, pending: Iterable[Drawn] = ()) -> None:
        self._sequence = sequence
        self._budget = sys.maxsize if tiles is None else tiles
        self._waiting: dict[int, Drawn] = {}
        self._keys: dict[int, _Key] = {}
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
        """The next pack; takes from `draws` to keep the buffer full. Empty when both are used
        up.
        """
        self._refill(draws)
        pack = self._begin(draws)
        while end := self._end(pack):
            for key in end:
                self._move(key, pack)
            self._refill(draws)
        return tuple(pack.draws)

    def _begin(self, draws: Iterator[Drawn]) -> _Open:
        """A pack with the oldest draw, and the next oldest while they leave enough room to
        choose an end.
        """
        even = self._sequence * self._tiles / max(1, self._tokens)
        pack = _Open(self._sequence, min(even, self._budget), self._budget)
        # The upper quartile: the longest of all may be an exception.
        long = self._sorted[len(self._sorted) * 3 // 4][0] if self._sorted else 0
        # Room for an end of two long draws suffices where all are short.
        least = min(_CHOSEN * self._sequence, 2 * long)
        while self._waiting:
            age, draw = next(iter(self._waiting.items()))
            if pack.draws and (pack.room - draw.tokens < least or draw.tiles > pack.most):
                break
            if len(pack.draws) == self._sequence:
                break  # Records that cost nothing would go on for ever.
            self._move((draw.tokens, draw.tiles, -age), pack)
            self._refill(draws)
        return pack

    def _end(self, pack: _Open) -> list[_Key]:
        """The one or two draws that fit the pack best; empty when it is full or none improves
        it.
        """
        room, even, most, full = pack.room, pack.even, pack.most, _CLOSE * self._sequence
        if room <= full:
            return []
        price = self._price()
        best, least = (_NOBODY, _NOBODY), room + price * abs(even)
        for first in self._oldest(room, most):
            left, odd = room - first[0], even - first[1]
            for second in self._partners(left):
                gap = left - second[0]
                if gap >= least:
                    break
                lack = gap + price * abs(odd - second[1])
                if lack < least and first[1] + second[1] <= most and second is not first:
                    best, least = (first, second), lack
            if least <= full + price / 2:
                break
        return [key for key in best if key is not _NOBODY]

    def _price(self) -> float:
        """Cost of a tile off the even share, in tokens."""
        return _TILE * self._tokens / self._tiles if self._tiles else 0.0

    def _oldest(self, room: int, tiles: int) -> Iterator[_Key]:
        """The oldest pending draws that fit."""
        keys = self._keys.values()
        return islice((key for key in keys if key[0] <= room and key[1] <= tiles), _TRIES)

    def _partners(self, room: int) -> list[_Key]:
        """The longest draws that fit, longest first, and `_NOBODY`."""
        end = bisect_left(self._sorted, (room + 1,))
        longest = self._sorted[end - _NEAR if end > _NEAR else 0 : end]
        longest.reverse()
        longest.append(_NOBODY)
        return longest

    def _refill(self, draws: Iterator[Drawn]) -> None:
        while len(self._sorted) < PENDING and (draw := next(draws, None)):
            self._add(draw)

    def _add(self, draw: Drawn) -> None:
        key = draw.tokens, draw.tiles, -self._count
        self._waiting[self._count], self._keys[self._count] = draw, key
        insort(self._sorted, key)
        self._count += 1
        self._tokens += draw.tokens
        self._tiles += draw.tiles

    def _move(self, key: _Key, pack: _Open) -> None:
        """Move a draw from the buffer into the pack."""
        tokens, tiles, age = key
        del self._sorted[bisect_left(self._sorted, key)]
        self._tokens -= tokens
        self._tiles -= tiles
        pack.draws.append(self._waiting.pop(-age))
        del self._keys[-age]
        pack.room -= tokens
        pack.even -= tiles
        pack.most -= tiles
