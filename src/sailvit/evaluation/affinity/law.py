"""The two scores of the Law of Vision Representation (arXiv 2408.16357): cross-modal alignment
and correspondence, which together predict how a multimodal model ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sailvit.core.errors import DataError
from sailvit.core.seeding import numpy_generator
from sailvit.evaluation.affinity.resampling import (
    PERMUTATIONS,
    Floats,
    Measured,
    mean_of_items,
)

REACH = 0.1
"""Share of the larger side of an object within which a point counts as found: PCK@0.10."""


@dataclass(frozen=True)
class KeyPoints:
    """Points of one picture and where they are in another."""

    source: Floats
    """float64[K, 2]: across and down, as shares of the width and height."""
    target: Floats
    """float64[K, 2]: the same points in the other picture."""
    size: tuple[float, float] = (1.0, 1.0)
    """Width and height of the other picture, in pixels."""
    extent: float = 1.0
    """Larger side of the object in the other picture, in pixels."""


def alignment_score(
    images: Sequence[NDArray[Any]], reference: Sequence[NDArray[Any]], *, seed: int = 0
) -> Measured:
    """How much of a reference model's visual tokens is in those of another: each token's largest
    cosine with a token of the reference for the same image, on average.

    Both are float[V, D] per image behind a connector to the same language. The authors' reference
    is CLIP at 336 pixels, trained with the same language; the baseline pairs images at random.

    Raises:
        DataError: the widths differ.
    """
    if images[0].shape[1] != reference[0].shape[1]:
        raise DataError(
            f"visual tokens are {images[0].shape[1]} wide and the reference's"
            f" {reference[0].shape[1]}; expected two models with one language"
        )
    ours, theirs = ([_unit(each) for each in side] for side in (images, reference))
    rng = numpy_generator(seed, "affinity", "law")
    found = np.array([_largest(a, b) for a, b in zip(ours, theirs, strict=True)])
    dealt = []
    # A single picture can only be paired with itself, so it has no baseline.
    for _ in range(min(PERMUTATIONS, len(ours) - 1)):
        order = rng.permutation(len(ours))
        dealt.append(np.mean([_largest(a, theirs[at]) for a, at in zip(ours, order, strict=True)]))
    return mean_of_items(found, rng, chance=float(np.mean(dealt)) if dealt else None)


def correspondence_score(
    pairs: Iterable[tuple[NDArray[Any], NDArray[Any], KeyPoints]],
    grid: tuple[int, int],
    *,
    seed: int = 0,
) -> Measured:
    """Share of points whose nearest patch of the other picture, by cosine, is where they are
    (PCK@0.10), on average over pairs of pictures.

    Each pair has patch features float[P, D] of both, in rows and columns of `grid`, and points.
    The baseline asks for the patch of a random place.
    """
    rng = numpy_generator(seed, "affinity", "points")
    centres = patch_centres(grid)
    shares, dealt = [], []
    for source, target, points in pairs:
        places = np.array([_patch_at(each, grid) for each in points.source])
        likeness = _unit(source)[places] @ _unit(target).T
        guesses = centres[likeness.argmax(axis=1)]
        shares.append(_found(guesses, points))
        dealt.append(_found(centres[rng.integers(len(centres), size=len(places))], points))
    return mean_of_items(np.array(shares), rng, chance=float(np.mean(dealt)))


def patch_centres(grid: tuple[int, int]) -> Floats:
    """float64[P, 2]: centres of the patches row by row, across and down, as shares."""
    rows, columns = grid
    down, across = np.mgrid[0:rows, 0:columns]
    centres: Floats = np.stack([(across + 0.5) / columns, (down + 0.5) / rows], axis=-1)
    return centres.reshape(-1, 2)


def _patch_at(point: Floats, grid: tuple[int, int]) -> int:
    rows, columns = grid
    # A point on the lower or right edge belongs to the last patch.
    row, column = min(int(point[1] * rows), rows - 1), min(int(point[0] * columns), columns - 1)
    return max(row, 0) * columns + max(column, 0)


def _found(guesses: Floats, points: KeyPoints) -> float:
    # In pixels, as the reach is one length while width and height differ.
    apart = np.linalg.norm((guesses - points.target) * points.size, axis=1)
    return float((apart <= REACH * points.extent).mean())


def _largest(ours: Floats, theirs: Floats) -> float:
    return float((ours @ theirs.T).max(axis=1).mean())


def _unit(rows: NDArray[Any]) -> Floats:
    found: Floats = rows.astype(np.float64)
    found /= np.linalg.norm(found, axis=1, keepdims=True) + 1e-30
    return found
