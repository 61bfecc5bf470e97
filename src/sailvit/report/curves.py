"""Makes curves small enough to draw: a few hundred points look the same as thousands of steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float64]

POINTS = 160
"""Buckets per curve; about the width of a chart in pixels divided by two."""


def finite(x: Series, y: Series) -> tuple[Series, Series]:
    """The points with a finite value."""
    keep = np.isfinite(y)
    return x[keep], y[keep]


def smoothed(y: Series, window: int | None = None) -> Series:
    """Centred moving average over `window` steps, by default 1/20 of all; shorter at both ends.

    Centred, because a trailing average would draw every falling loss too high.
    """
    half = (window or len(y) // 20) // 2
    sums = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    first, after = np.maximum(at - half, 0), np.minimum(at + half + 1, len(y))
    averages: Series = (sums[after] - sums[first]) / (after - first)
    return averages


def envelope(x: Series, y: Series, buckets: int = POINTS) -> tuple[Series, Series]:
    """Lowest and highest point of every bucket, in order, so that no spike is lost."""
    if len(x) <= 2 * buckets:
        return x, y
    parts = np.array_split(np.arange(len(x)), buckets)
    chosen = np.unique(
        [i for part in parts for i in (part[y[part].argmin()], part[y[part].argmax()])]
    )
    return x[chosen], y[chosen]


def thinned(x: Series, y: Series, points: int = POINTS) -> tuple[Series, Series]:
    """Evenly taken points, first and last included; for curves that are smooth already."""
    chosen = spread_indices(len(x), points)
    return x[chosen], y[chosen]


def spread_indices(count: int, most: int) -> NDArray[np.int64]:
    """int64[min(count, most)]: indices spread over `count` items, first and last included."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)
