"""Feature affinity: how far visual features lie from the language's embeddings, in a joint 2-d
picture.

Both sets are projected by one PCA fitted on their union, then compared there by three
distances, as in Table 7 of the SAILViT paper. The paper does not say how the sets are drawn and
how the transport problem is solved. Here every visual feature and every embedding row that is
passed in counts, except in the Wasserstein distance, see `_wasserstein`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from sailvit.core.errors import DataError
from sailvit.core.seeding import numpy_generator

Points = NDArray[np.float64]

TRANSPORTED = 1000
"""Most points per set in the optimal transport: assignment is cubic at worst, and 1000 points
take under a second on one core."""
ROWS_AT_ONCE = 256
"""Visual points per block of the mean distance: with a vocabulary of 150,000 a block takes 300
MB."""
DRAWN = 500
"""Most points per set written for the picture."""


@dataclass(frozen=True)
class Affinity:
    """Two point sets in their joint PCA plane and three distances between them; smaller is
    closer.
    """

    visual: Points
    """float64[N, 2]: projected visual features."""
    text: Points
    """float64[M, 2]: projected embedding rows."""
    nearest: float
    """Mean distance from a visual point to its nearest text point."""
    wasserstein: float
    """Least mean distance that turns one set into the other (1-Wasserstein, Euclidean ground
    distance)."""
    mean: float
    """Mean distance over all visual-text pairs."""
    explained: tuple[float, float]
    """Shares of the union's variance along the two axes; the distances do not see the rest."""

    def to_json(self) -> dict[str, Any]:
        """One model's entry of affinity.json, with at most 500 evenly taken points per set."""
        return {
            "visual": _thinned(self.visual),
            "text": _thinned(self.text),
            "distances": {
                "nearest": self.nearest,
                "wasserstein": self.wasserstein,
                "mean": self.mean,
            },
            "explained": list(self.explained),
            "counts": {"visual": len(self.visual), "text": len(self.text)},
        }


def affinity(visual: NDArray[Any], text: NDArray[Any], *, seed: int = 0) -> Affinity:
    """Affinity of float[N, D] visual features and float[M, D] embedding rows; the same
    arguments give the same bits.
    """
    _check(visual, text)
    union = np.concatenate([visual, text]).astype(np.float64)
    plane, (across, along) = _plane(union)
    seen, read = plane[: len(visual)], plane[len(visual) :]
    return Affinity(
        visual=seen,
        text=read,
        nearest=float(cKDTree(read).query(seen)[0].mean()),
        wasserstein=_wasserstein(seen, read, seed),
        mean=_mean_distance(seen, read),
        explained=(across, along),
    )


def _plane(union: Points) -> tuple[Points, tuple[float, float]]:
    """float64[N, 2]: the rows of float64[N, D] along their two widest directions, whose shares
    of the variance follow.

    By eigenvectors of the D x D covariance: exact, and linear in the number of rows. Each
    points to where its largest entry is positive.
    """
    centred = union - union.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T @ centred)
    # The sign of an eigenvector is arbitrary and differs between LAPACK builds.
    chosen = directions[:, [-1, -2]]
    chosen = chosen * np.sign(chosen[np.abs(chosen).argmax(axis=0), [0, 1]])
    total = max(float(variances.sum()), np.finfo(np.float64).tiny)
    return centred @ chosen, (float(variances[-1]) / total, float(variances[-2]) / total)


def _check(visual: NDArray[Any], text: NDArray[Any]) -> None:
    """Refuse sets that have no common plane."""
    for name, points in (("visual", visual), ("text", text)):
        if points.ndim != 2 or len(points) == 0 or points.shape[1] < 2:
            raise DataError(
                f"{name} features have shape {points.shape}; expected float[rows >= 1, width >= 2]"
            )
        if not np.isfinite(points).all():
            raise DataError(
                f"{name} features hold NaN or infinity; affinity needs finite values: check the model"
            )
    if visual.shape[1] != text.shape[1]:
        raise DataError(
            f"visual features are {visual.shape[1]} wide and text embeddings {text.shape[1]}; pass the connector's"
            " output, which has the language's width, not the tower's"
        )


def _wasserstein(visual: Points, text: Points, seed: int) -> float:
    """Mean cost of the best one-to-one assignment between equal-size samples.

    For equal-size sets of equal weight this assignment *is* the optimal transport, solved
    exactly and with scipy alone. A sliced distance would be cheaper, but is another number,
    about 2/3 of this one in 2-d, and so not comparable with the paper's. Sets that differ in
    size, or exceed the limit, are sampled without replacement, seeded.
    """
    size = min(len(visual), len(text), TRANSPORTED)
    rng = numpy_generator(seed, "affinity", "wasserstein")
    sources, targets = (
        points[np.sort(rng.choice(len(points), size, replace=False))] for points in (visual, text)
    )
    cost = cdist(sources, targets)
    return float(cost[linear_sum_assignment(cost)].mean())


def _mean_distance(visual: Points, text: Points) -> float:
    """Mean over all pairs, in blocks."""
    blocks = range(0, len(visual), ROWS_AT_ONCE)
    total = sum(float(cdist(visual[start : start + ROWS_AT_ONCE], text).sum()) for start in blocks)
    return total / (len(visual) * len(text))


def _thinned(points: Points) -> list[list[float]]:
    """Evenly taken points, rounded for a small file."""
    chosen = np.unique(np.linspace(0, len(points) - 1, min(len(points), DRAWN)).round().astype(int))
    return [[round(float(x), 4), round(float(y), 4)] for x, y in points[chosen]]
