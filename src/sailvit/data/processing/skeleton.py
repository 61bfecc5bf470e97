"""A conversation without its texts: what a chat template writes around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Slot:
    """A place in the rendered conversation for a stretch of a turn's text."""

    literal: str
    """The template's text before it."""
    stretch: int
    """Number of the stretch that goes here, counted over all turns."""
    opens: int | None
    """The answer begins so many characters before the stretch; None: the stretch begins no
    answer."""
    closes: int | None
    """The answer, with its end-of-turn token, ends so many characters after the stretch; None:
    the stretch ends no answer."""


@dataclass(frozen=True)
class Skeleton:
    """A conversation without its texts."""

    slots: tuple[Slot, ...]
    """Places of the stretches, in order; a stretch that the template drops has none."""
    end: str
    """The text after the last slot."""

    @property
    def in_order(self) -> bool:
        """Whether texts are shown in the order of their turns."""
        return all(a.stretch < b.stretch for a, b in zip(self.slots, self.slots[1:], strict=False))

    def fill(self, stretches: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
        """The conversation with its stretches of text in place, and the character spans of its
        answers.
        """
        pieces, spans, at, begin = [], [], 0, 0
        for slot in self.slots:
            stretch = stretches[slot.stretch]
            start = at + len(slot.literal)
            at = start + len(stretch)
            pieces += [slot.literal, stretch]
            if slot.opens is not None:
                begin = start - slot.opens
            if slot.closes is not None:
                spans.append((begin, at + slot.closes))
        return "".join([*pieces, self.end]), spans
