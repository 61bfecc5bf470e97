"""The blend: which source each draw is from, computed from the number of draws so far alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_STAGGER = (5**0.5 - 1) / 2
"""Distance between two sources' phases: the golden ratio's fraction."""


class Blend:
    """Draws in the order in which they are due: a source's n-th draw is due at
    `(n + phase) / share`.

    After any number of draws a source is within about two of its share. A source that reaches
    its cap has no more draws, so the others keep their proportion. Phases spread by the golden
    ratio keep many small sources from being due all at once.
    """

    def __init__(self, shares: Mapping[str, float], caps: Mapping[str, int]) -> None:
        total = sum(shares.values())
        self.sources = sorted(shares)
        self._shares = [shares[source] / total for source in self.sources]
        self._caps = [caps.get(source) for source in self.sources]

    def next(self, drawn: Mapping[str, int], size: int) -> tuple[list[range], NDArray[np.int64]]:
        """About `size` draws that follow `drawn` draws per source; no draws once every source
        has reached its cap.

        Returns the candidates, one range of n per source, and the draws int64[m], in order, as
        indices into the candidates of all sources, one range after the other.
        """
        ranges, dues, horizon = [], [], np.inf
        for index, source in enumerate(self.sources):
            first, cap = drawn[source], self._caps[index]
            last = first + int(self._shares[index] * size) + 1
            if cap is None or last < cap:
                horizon = min(horizon, self.due(index, last))
            else:
                last = max(first, cap)
            ranges.append(range(first, last))
            dues.append((np.arange(first, last) + self._phase(index)) / self._shares[index])
        due = np.concatenate(dues)
        order = np.argsort(due, kind="stable")
        # Only what is due before every source's first draw beyond its candidates is certain.
        return ranges, order[: int(np.searchsorted(due[order], horizon))]

    def due(self, index: int, nth: int) -> float:
        """When the n-th draw of a source is due, in draws of the whole blend."""
        return (nth + self._phase(index)) / self._shares[index]

    def most(self, index: int, limit: int | None) -> float:
        """About how often a source is drawn in `limit` draws, if no other reaches its cap."""
        cap = self._caps[index]
        total = np.inf if limit is None else limit * self._shares[index]
        return total if cap is None else min(cap, total)

    @staticmethod
    def _phase(index: int) -> float:
        return (index + 1) * _STAGGER % 1
