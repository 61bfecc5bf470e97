"""The plane of a table's two widest directions, and distances of two point sets in a plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from sailvit.core.seeding import numpy_generator
from sailvit.models.measures.rows import Rows, blocks

Points = NDArray[np.float64]

TRANSPORTED = 1000
"""Most points per set in the optimal transport: assignment is cubic at worst, and 1000 points
take under a second on one core."""
ROWS_AT_ONCE = 64
"""Points per block of the mean distance: with a vocabulary of 150,000 a block takes 80 MB."""


@dataclass(frozen=True)
class Plane:
    """The plane through a table's mean along its two widest directions."""

    centre: Points
    """float64[D]: the mean."""
    axes: Points
    """float64[D, 2]: unit directions, each positive where its largest entry is."""
    explained: tuple[float, float]
    """Shares of the variance along them."""

    def project(self, rows: Rows) -> Points:
        """float64[N, 2]: rows float[N, D] in the plane."""
        parts = [(block.astype(np.float64) - self.centre) @ self.axes for block in blocks(rows)]
        return np.concatenate([np.zeros((0, 2)), *parts])


@dataclass(frozen=True)
class PlaneDistances:
    """Distances of a point set to another one in a plane; smaller is closer."""

    nearest: Points
    """float64[N]: of each point to the nearest one of the other set."""
    mean: Points
    """float64[N]: of each point to all of the other set, on average."""
    wasserstein: float
    """Least mean distance that turns one set into the other (1-Wasserstein, Euclidean)."""


def widest_plane(*tables: Rows) -> Plane:
    """The plane of all rows of the tables together, by principal components.

    By eigenvectors of the D x D covariance: exact, linear in the number of rows, and in memory
    of one block and D x D numbers.
    """
    count = sum(map(len, tables))
    total = sum(block.astype(np.float64).sum(axis=0) for table in tables for block in blocks(table))
    centre = np.asarray(total) / count
    width = tables[0].width
    scatter = np.zeros((width, width))
    for table in tables:
        for block in blocks(table):
            centred = block.astype(np.float64) - centre
            scatter += centred.T @ centred
    variance = max(float(np.trace(scatter)), np.finfo(np.float64).tiny)
    widths, directions = eigh(
        scatter, subset_by_index=(width - 2, width - 1), overwrite_a=True, check_finite=False
    )
    # The sign of an eigenvector is arbitrary and differs between LAPACK builds.
    axes = directions[:, ::-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    return Plane(centre, axes, (float(widths[1]) / variance, float(widths[0]) / variance))


def plane_distances(points: Points, others: Points, *, seed: int) -> PlaneDistances:
    """Distances of float64[N, 2] to float64[M, 2]."""
    return PlaneDistances(
        nearest=nearest_distances(points, others),
        mean=mean_distances(points, others),
        wasserstein=wasserstein(points, others, seed=seed),
    )


def nearest_distances(points: Points, others: Points) -> Points:
    """float64[N]: distance of each point to the nearest of the others."""
    found: Points = cKDTree(others).query(points)[0]
    return found


def mean_distances(points: Points, others: Points) -> Points:
    """float64[N]: mean distance of each point to all others, in blocks."""
    starts = range(0, len(points), ROWS_AT_ONCE)
    parts = [cdist(points[at : at + ROWS_AT_ONCE], others).mean(axis=1) for at in starts]
    return np.concatenate(parts)


def wasserstein(points: Points, others: Points, *, seed: int) -> float:
    """Mean cost of the best one-to-one assignment between equal-size samples.

    For equal-size sets of equal weight this assignment *is* the optimal transport, solved
    exactly and with scipy alone. Sets that differ in size, or exceed the limit, are sampled
    without replacement, seeded.
    """
    size = min(len(points), len(others), TRANSPORTED)
    rng = numpy_generator(seed, "affinity", "wasserstein")
    sources, targets = (
        some[np.sort(rng.choice(len(some), size, replace=False))] for some in (points, others)
    )
    cost: NDArray[Any] = cdist(sources, targets)
    return float(cost[linear_sum_assignment(cost)].mean())
