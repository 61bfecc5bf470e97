"""A number with what redrawing its items and breaking its pairing make of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

DRAWS = 200
"""Redrawn sets of an interval."""
GROUPS = 8
"""Groups of items, each left out in turn, for the interval of CKA."""
PERMUTATIONS = 20
"""Permutations of a baseline: its mean is needed, not its tails."""


@dataclass(frozen=True)
class Measured:
    """A measure with its uncertainty and what it would be by chance."""

    value: float
    """The measure."""
    low: float | None
    """Lower end of the 95 % interval; None: a single item has none."""
    high: float | None
    """Upper end."""
    chance: float | None
    """Mean of the same measure after random permutations: of the labels of both sets for
    distances, of the pairs for measures of paired items."""
    n: int
    """Items that the interval is about: images or pairs."""


def interval(values: Sequence[float] | Floats) -> tuple[float, float]:
    """The middle 95 % of redrawn values."""
    low, high = np.quantile(np.asarray(values, dtype=np.float64), (0.025, 0.975))
    return float(low), float(high)


def redrawn(
    count: int, statistic: Callable[[Indices], float], rng: np.random.Generator, draws: int = DRAWS
) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of a statistic of `count` items, redrawn with replacement; nothing for a
    single item.
    """
    if count < 2:
        return None, None
    return interval([statistic(rng.integers(count, size=count)) for _ in range(draws)])


def groups_left_out(
    value: float, items: Indices, statistic: Callable[[Indices], float]
) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of a `value` between 0 and 1, by the jackknife: `statistic` is told the
    positions int64[K] that stay while each group of items is left out; nothing for a single item.

    `items` int64[N] is the item, from 0, of every position; items are dealt to groups in turn.
    """
    groups = min(GROUPS, int(items.max()) + 1)
    if groups < 2:
        return None, None
    without = np.array(
        [statistic(np.flatnonzero(items % groups != group)) for group in range(groups)]
    )
    error = float(np.sqrt((groups - 1) / groups * np.square(without - without.mean()).sum()))
    # A normal interval near an end of the range would leave it.
    return max(0.0, value - 1.96 * error), min(1.0, value + 1.96 * error)


def mean_of_items(
    values: Floats, rng: np.random.Generator, *, chance: float | None = None
) -> Measured:
    """The mean of float64[n] items, redrawn."""
    low, high = redrawn(len(values), lambda drawn: float(values[drawn].mean()), rng)
    return Measured(float(values.mean()), low, high, chance, len(values))


def by_item(values: Floats, items: Indices) -> Floats:
    """float64[I]: means of float64[N] values over the items int64[N] that they belong to."""
    means: Floats = np.bincount(items, values) / np.bincount(items)
    return means
