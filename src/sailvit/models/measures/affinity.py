"""Joint affinity: how far visual tokens lie from the language's embeddings, in one 2-d picture.

Both sets have the language's width and are projected by one PCA fitted on their union, then
compared there by three distances. This is a companion of ours to Table 7 of the SAILViT paper
(arXiv 2507.01643), not its protocol: the paper takes the tower's own features, before the
connector, and one PCA per side (`evaluation.affinity.published`). Every visual feature and
every embedding row that is passed in counts, except in the Wasserstein distance, see
`plane.wasserstein`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sailvit.core.errors import DataError
from sailvit.models.measures.plane import Points, plane_distances, widest_plane
from sailvit.models.measures.rows import ArrayRows, Rows, blocks

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
            "visual": thinned(self.visual),
            "text": thinned(self.text),
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
    for name, points in (("visual", visual), ("text", text)):
        if points.ndim != 2:
            raise DataError(f"{name} features have shape {points.shape}; expected float[rows, D]")
    return joint_affinity(ArrayRows(visual), ArrayRows(text), seed=seed)


def joint_affinity(visual: Rows, text: Rows, *, seed: int = 0) -> Affinity:
    """Affinity of two tables that are as wide as each other, read in blocks."""
    check_rows(visual=visual, text=text)
    if visual.width != text.width:
        raise DataError(
            f"visual features are {visual.width} wide and text embeddings {text.width}; pass the"
            " connector's output, which has the language's width, not the tower's"
        )
    plane = widest_plane(visual, text)
    seen, read = plane.project(visual), plane.project(text)
    found = plane_distances(seen, read, seed=seed)
    return Affinity(
        visual=seen,
        text=read,
        nearest=float(found.nearest.mean()),
        wasserstein=found.wasserstein,
        mean=float(found.mean.mean()),
        explained=plane.explained,
    )


def check_rows(**tables: Rows) -> None:
    """Refuse tables that have no plane, each under its name."""
    for name, rows in tables.items():
        if len(rows) == 0 or rows.width < 2:
            raise DataError(
                f"{name} features have shape {(len(rows), rows.width)}; expected"
                " float[rows >= 1, width >= 2]"
            )
        if not all(np.isfinite(block).all() for block in blocks(rows)):
            raise DataError(
                f"{name} features hold NaN or infinity; affinity needs finite values: check the model"
            )


def thinned(points: Points) -> list[list[float]]:
    """Evenly taken points, rounded for a small file."""
    chosen = np.unique(np.linspace(0, len(points) - 1, min(len(points), DRAWN)).round().astype(int))
    return [[round(float(x), 4), round(float(y), 4)] for x, y in points[chosen]]
