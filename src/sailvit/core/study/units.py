"""What measures are counted in, and whether more or less of it is better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """How the values of a measure, and their differences, are counted."""

    name: str
    """What a difference is told in."""
    scale: float
    """Times a cell's value."""
    better: int
    """1 where more is better, -1 where less is."""
    digits: int
    """Digits after the point of a difference."""

    def gain(self, difference: float) -> float:
        """A difference as what is won by it: positive where it is for the better."""
        return self.better * difference


POINTS = Unit("points", 100.0, 1, 1)
"""Shares, told in percent."""
NATS = Unit("nats", 1.0, -1, 3)
"""Negative log-likelihood per token. Differences of it do not depend on how hard the texts are,
as those of perplexity do: 0.01 nats are 1 % of perplexity at any level."""
UNITS = {each.name: each for each in (POINTS, NATS)}
"""Units by name."""
