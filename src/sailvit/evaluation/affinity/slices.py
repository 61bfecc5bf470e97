"""The gap between two clouds' means, and their sliced Wasserstein distance: the mean over random
directions of the transport between both along one direction (Bonneel et al., 2015).

It sees every direction, where a 2-d picture sees two, and needs no assignment. It is divided by
what a shift by 1 counts, so that a pure shift counts its own length at any width. Directions are
the same for all models of one width: their choice moves a shift by 7 % or so, but alike for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from sailvit.core.seeding import numpy_generator
from sailvit.evaluation.affinity.resampling import Floats, Indices, Measured, redrawn
from sailvit.models.measures.rows import Rows, blocks

_SLICES = 128
"""Directions: those of 150,000 rows take 77 MB."""
_QUANTILES = 1024
"""Points of a distribution along one direction."""
_DEALS = 4
"""Permutations of labels."""


@dataclass(frozen=True)
class Clouds:
    """Two clouds along the directions."""

    ours: NDArray[np.float32]
    """float32[L, N]: the visual rows."""
    theirs: NDArray[np.float32]
    """float32[L, M]: the text rows."""
    items: Indices
    """int64[N]: the image of each visual row."""
    means: Floats
    """float64[I, D]: the mean of each image's rows."""
    centre: Floats
    """float64[D]: the mean of the text rows."""
    variance: float
    """Mean squared distance of all rows of both to their common mean."""
    width: int
    """D."""


def project(
    visual: NDArray[np.float32], text: Rows, items: Indices, *, unit: bool, seed: int
) -> Clouds:
    """Both clouds along the directions; `unit` scales all rows to length 1 first."""
    directions = numpy_generator(seed, "affinity", "directions").normal(size=(text.width, _SLICES))
    # Normal numbers, scaled to length 1, are spread evenly over all directions.
    directions /= np.linalg.norm(directions, axis=0)
    ours = _scaled(visual, unit=unit)
    sums, squares = np.zeros(text.width), 0.0
    # Only the table's shadows are kept: 150,000 rows of width 2048 in doubles would take 2.5 GB.
    theirs = np.empty((_SLICES, len(text)), dtype=np.float32)
    place = 0
    for block in blocks(text):
        rows = _scaled(block, unit=unit)
        sums, squares = sums + rows.sum(axis=0), squares + float(np.square(rows).sum())
        theirs[:, place : place + len(rows)] = (rows @ directions).T
        place += len(rows)
    count = len(ours) + len(text)
    both = (ours.sum(axis=0) + sums) / count
    return Clouds(
        ours=(ours @ directions).T.astype(np.float32),
        theirs=theirs,
        items=items,
        means=np.stack([ours[items == item].mean(axis=0) for item in range(items[-1] + 1)]),
        centre=sums / len(text),
        variance=(float(np.square(ours).sum()) + squares) / count - float(both @ both),
        width=text.width,
    )


def centroids(clouds: Clouds, rng: np.random.Generator) -> Measured:
    """The distance of both means; by chance it is that of two samples of the pooled rows."""
    count = len(clouds.means)

    def apart(drawn: Indices) -> float:
        """The distance for redrawn images."""
        return float(np.linalg.norm(clouds.means[drawn].mean(axis=0) - clouds.centre))

    shares = 1 / clouds.ours.shape[1] + 1 / clouds.theirs.shape[1]
    # Known in closed form, so nothing has to be dealt.
    chance = float(np.sqrt(max(clouds.variance, 0.0) * shares))
    low, high = redrawn(count, apart, rng)
    return Measured(apart(np.arange(count)), low, high, chance, count)


def sliced(clouds: Clouds, rng: np.random.Generator) -> Measured:
    """The sliced Wasserstein distance; by chance it is that of pooled rows dealt anew."""
    count, marks = len(clouds.means), _quantiles(clouds.theirs)
    factor = slice_factor(clouds.width)

    def moved(drawn: Indices) -> float:
        """The distance for redrawn images."""
        rows = np.concatenate([clouds.ours[:, clouds.items == item] for item in drawn], axis=1)
        return float(np.abs(_quantiles(rows) - marks).mean()) / factor

    pool, share = np.concatenate([clouds.ours, clouds.theirs], axis=1), clouds.ours.shape[1]
    dealt = []
    for _ in range(_DEALS):
        order = rng.permutation(pool.shape[1])
        pair = (_quantiles(pool[:, order[:share]]), _quantiles(pool[:, order[share:]]))
        dealt.append(float(np.abs(pair[0] - pair[1]).mean()) / factor)
    low, high = redrawn(count, moved, rng)
    return Measured(moved(np.arange(count)), low, high, float(np.mean(dealt)), count)


def slice_factor(width: int) -> float:
    """What a shift by 1 counts along a random direction of that width, on average."""
    return float(np.exp(gammaln(width / 2) - gammaln((width + 1) / 2)) / np.sqrt(np.pi))


def _scaled(rows: NDArray[Any], *, unit: bool) -> Floats:
    found: Floats = rows.astype(np.float64)
    if unit:
        found /= np.linalg.norm(found, axis=1, keepdims=True) + 1e-30
    return found


def _quantiles(values: NDArray[np.float32]) -> Floats:
    """float64[L, Q]: evenly taken quantiles of float32[L, N] along each direction."""
    # One sort of all: numpy's quantile of a row at a time takes ten times as long.
    ordered = np.sort(values, axis=1)
    place = (np.arange(_QUANTILES) + 0.5) / _QUANTILES * (values.shape[1] - 1)
    below = place.astype(np.int64)
    # The last quantile of a few values has none above it.
    above, share = np.minimum(below + 1, values.shape[1] - 1), place - below
    found: Floats = ordered[:, below] * (1 - share) + ordered[:, above] * share
    return found
