"""Feature affinity as published: Table 7 and Figure 6 of SAILViT (arXiv 2507.01643).

Five random images; the tower's own features before the connector, all patches; rows of the
language's embedding table. Their widths differ, so each side has a PCA of its own, to two
dimensions; then three distances between the two clouds. The paper does not say which rows it
takes and how it solves the transport: here all rows of words count, and the transport is exact
between samples of equal size.

A PCA by itself centres its side, and leaves open which way its axes point. So the gap between
the two means is not seen, and mirroring one cloud gives an equally good answer: `mirrored` has
the range over the four ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sailvit.core.seeding import numpy_generator
from sailvit.evaluation.affinity.resampling import (
    PERMUTATIONS,
    Indices,
    Measured,
    by_item,
    mean_of_items,
    redrawn,
)
from sailvit.models.measures.affinity import check_rows, thinned
from sailvit.models.measures.plane import (
    TRANSPORTED,
    Points,
    mean_distances,
    nearest_distances,
    plane_distances,
    wasserstein,
    widest_plane,
)
from sailvit.models.measures.rows import ArrayRows, Rows

_TRANSPORTS = 40
"""Redrawn sets for the interval of the transport, each of which takes a quarter of a second."""
_PAIRED = 20_000
"""Most points of the other set in a baseline's mean distance."""


@dataclass(frozen=True)
class PublishedAffinity:
    """Two clouds in the plane, each from a PCA of its own, and their distances."""

    visual: Points
    """float64[N, 2]: all patches of all images."""
    text: Points
    """float64[M, 2]: rows of the embedding table."""
    explained: dict[str, tuple[float, float]]
    """Shares of the variance along both axes, by side."""
    distances: dict[str, Measured]
    """`nearest`, `wasserstein` and `mean`; smaller is closer."""
    mirrored: dict[str, tuple[float, float]]
    """Least and largest value of each over the four ways in which the axes may point."""

    def to_json(self) -> dict[str, Any]:
        """The entry of affinity.json, with at most 500 evenly taken points per side."""
        return {
            "visual": thinned(self.visual),
            "text": thinned(self.text),
            "explained": self.explained,
            "distances": {name: asdict(each) for name, each in self.distances.items()},
            "mirrored": self.mirrored,
            "counts": {"visual": len(self.visual), "text": len(self.text)},
        }


def published_affinity(
    images: Sequence[NDArray[Any]], text: Rows, *, seed: int = 0
) -> PublishedAffinity:
    """Affinity of patch features, float[P, D] per image, and embedding rows float[M, E].

    Intervals redraw the images, within the planes of all; the baseline deals the points of both
    clouds anew to the two sides.
    """
    visual = ArrayRows(np.concatenate(images))
    check_rows(visual=visual, text=text)
    planes = {"visual": widest_plane(visual), "text": widest_plane(text)}
    seen, read = planes["visual"].project(visual), planes["text"].project(text)
    items = np.repeat(np.arange(len(images)), [len(image) for image in images])
    return PublishedAffinity(
        visual=seen,
        text=read,
        explained={name: plane.explained for name, plane in planes.items()},
        distances=_distances(seen, read, items, seed),
        mirrored=_mirrored(seen, read, seed),
    )


def _distances(seen: Points, read: Points, items: Indices, seed: int) -> dict[str, Measured]:
    found = plane_distances(seen, read, seed=seed)
    rng = numpy_generator(seed, "affinity", "images")
    count = int(items[-1]) + 1
    chance = _chance(seen, read, seed)
    measured = {
        name: mean_of_items(by_item(values, items), rng, chance=chance[name])
        for name, values in (("nearest", found.nearest), ("mean", found.mean))
    }

    def transported(drawn: Indices) -> float:
        """The transport from the patches of redrawn images."""
        points = np.concatenate([seen[items == item] for item in drawn])
        return wasserstein(points, read, seed=seed)

    low, high = redrawn(count, transported, rng, _TRANSPORTS)
    least = Measured(found.wasserstein, low, high, chance["wasserstein"], count)
    return {"nearest": measured["nearest"], "wasserstein": least, "mean": measured["mean"]}


def _chance(seen: Points, read: Points, seed: int) -> dict[str, float]:
    """Means of the distances when the points of both clouds are dealt anew."""
    rng = numpy_generator(seed, "affinity", "labels")
    pool = np.concatenate([seen, read])
    found = []
    for number in range(PERMUTATIONS):
        order = rng.permutation(len(pool))
        # As many points as the transport takes, as a baseline needs its mean only.
        ours, others = pool[order[: len(seen)][:TRANSPORTED]], pool[order[len(seen) :]]
        found.append(
            {
                "nearest": float(nearest_distances(ours, others).mean()),
                "wasserstein": wasserstein(ours, others, seed=seed + number),
                "mean": float(mean_distances(ours, others[:_PAIRED]).mean()),
            }
        )
    return {name: float(np.mean([each[name] for each in found])) for name in found[0]}


def _mirrored(seen: Points, read: Points, seed: int) -> dict[str, tuple[float, float]]:
    found = []
    # Only one cloud is turned: turning both changes no distance.
    for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        each = plane_distances(seen * signs, read, seed=seed)
        found.append((float(each.nearest.mean()), each.wasserstein, float(each.mean.mean())))
    return {
        name: (min(values), max(values))
        for name, values in zip(
            ("nearest", "wasserstein", "mean"), zip(*found, strict=True), strict=True
        )
    }
