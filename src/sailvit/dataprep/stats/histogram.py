"""Histograms in bounded memory that can be merged."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

_PER_OCTAVE = 16
"""Bins per factor of two: the middle of a bin is within 2.2 % of all its values."""
_MOST = 1000
"""Whole numbers from here on share a bin."""


class Histogram:
    """Counts values in bins: of equal ratio, or one bin per whole number."""

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole
        self._bins: Counter[int] = Counter()
        self.count = 0
        """Number of values."""
        self._sum = 0.0
        self._low, self._high = math.inf, -math.inf

    def add(self, values: Iterable[float]) -> None:
        """Add values that are not negative; zero has a bin of its own."""
        for value in values:
            self._bins[self._place(value)] += 1
            self.count += 1
            self._sum += value
            self._low, self._high = min(self._low, value), max(self._high, value)

    def merge(self, other: Histogram) -> None:
        """Add all values of another histogram."""
        self._bins.update(other._bins)
        self.count += other.count
        self._sum += other._sum
        self._low, self._high = min(self._low, other._low), max(self._high, other._high)

    def summary(self) -> dict[str, Any] | None:
        """Figures and bins `[from, to, count]` as JSON values; None: no values."""
        if not self.count:
            return None
        quantiles = {
            name: self._quantile(q) for name, q in (("p5", 0.05), ("median", 0.5), ("p95", 0.95))
        }
        bins = [[*self._edges(place), self._bins[place]] for place in sorted(self._bins)]
        ends = {"min": self._low, "max": self._high, "mean": self._sum / self.count}
        return {"count": self.count, **ends, **quantiles, "whole": self._whole, "bins": bins}

    def _place(self, value: float) -> int:
        if self._whole:
            return min(int(value), _MOST)
        # The bin of zero lies below all others: -1000 would be the bin of 1e-19.
        return math.floor(_PER_OCTAVE * math.log2(value)) if value > 0 else -_MOST

    def _edges(self, place: int) -> tuple[float, float]:
        if self._whole:
            return place, place + 1
        if place == -_MOST:
            return 0.0, 0.0
        return 2 ** (place / _PER_OCTAVE), 2 ** ((place + 1) / _PER_OCTAVE)

    def _quantile(self, share: float) -> float:
        """The middle of the quantile's bin, but not outside the range of the values."""
        seen, wanted = 0, share * (self.count - 1)
        for place in sorted(self._bins):
            seen += self._bins[place]
            if seen > wanted:
                low, high = self._edges(place)
                middle = low if self._whole else math.sqrt(low * high)
                return min(max(middle, self._low), self._high)
        return self._high
