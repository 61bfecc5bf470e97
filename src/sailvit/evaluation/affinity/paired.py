"""How alike pictures and their captions are arranged, without a common space: mutual nearest
neighbours (arXiv 2405.07987), linear and kernel CKA (arXiv 1905.00414); and caption retrieval
where there is one.

Rows of both sides belong together in pairs. The baseline breaks the pairing at random: with few
pairs all of these are well above 0 even then.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sailvit.core.seeding import numpy_generator
from sailvit.evaluation.affinity.resampling import (
    PERMUTATIONS,
    Floats,
    Indices,
    Measured,
    groups_left_out,
    mean_of_items,
)

NEIGHBOURS = 10
"""Neighbours that count as near, as in the paper; fewer where there are few pairs."""
FEWEST = 8
"""Fewest pairs that are measured."""

Features = NDArray[np.floating]


def neighbour_overlap(one: Features, other: Features, *, seed: int = 0) -> Measured:
    """Mean share of the nearest neighbours, by cosine, that a pair has in common on both sides.

    Items are redrawn, their neighbours among all stay: redrawing these would make copies each
    other's neighbours.
    """
    # At most half of the others: all of them are everyone's neighbours, which would be agreement.
    near = min(NEIGHBOURS, (len(one) - 1) // 2)
    sides = [_near(side, near) for side in (one, other)]
    rng = numpy_generator(seed, "affinity", "neighbours")

    def shares(order: Indices) -> Floats:
        """float64[N]: shares in common where item i is paired with item order[i]."""
        # Neighbours are numbered by pairs, so that the other side's numbers move as well.
        place = np.argsort(order)
        theirs = place[sides[1]][order]
        common = [
            len(np.intersect1d(a, b, assume_unique=True))
            for a, b in zip(sides[0], theirs, strict=True)
        ]
        return np.array(common, dtype=np.float64) / near

    count = len(one)
    chance = [float(shares(rng.permutation(count)).mean()) for _ in range(PERMUTATIONS)]
    return mean_of_items(shares(np.arange(count)), rng, chance=float(np.mean(chance)))


def linear_alignment(one: Features, other: Features, *, seed: int = 0) -> Measured:
    """Linear CKA of float[N, D] and float[N, E]."""
    return _alignment(*(_product(side) for side in (one, other)), seed=seed)


def kernel_alignment(one: Features, other: Features, *, seed: int = 0) -> Measured:
    """CKA with a Gaussian kernel, as wide as the median distance of two items."""
    return _alignment(*(_gaussian(side) for side in (one, other)), seed=seed)


def retrieval(images: Features, texts: Features, *, seed: int = 0) -> dict[str, Measured]:
    """Recall of the right caption for an image and of the right image for a caption, at 1 and
    5, by cosine in the space of both.

    Captions that are equal word for word are all right.
    """
    rows, columns = (_unit(side) for side in (images, texts))
    likeness = rows @ columns.T
    # Another picture's caption in the same words is as right as one's own.
    _, group = np.unique(texts, axis=0, return_inverse=True)
    right = group[:, None] == group[None, :]
    rng = numpy_generator(seed, "affinity", "retrieval")
    found = {}
    for way, scores in (("image_to_text", likeness), ("text_to_image", likeness.T)):
        for most in (1, 5):
            hits = _hits(scores, right, most)
            dealt = [
                float(_hits(scores[:, rng.permutation(len(hits))], right, most).mean())
                for _ in range(PERMUTATIONS)
            ]
            measured = mean_of_items(hits, rng, chance=float(np.mean(dealt)))
            found[f"{way}_at_{most}"] = measured
    return found


def _hits(scores: Floats, right: NDArray[np.bool_], most: int) -> Floats:
    """float64[N]: 1 where something right is among the `most` likeliest."""
    # Stable, so that equal cosines, as those of equal captions, keep one order.
    best = np.argsort(-scores, axis=1, kind="stable")[:, :most]
    found = np.take_along_axis(right, best, axis=1).any(axis=1)
    return np.asarray(found, dtype=np.float64)


def _alignment(one: Floats, other: Floats, *, seed: int) -> Measured:
    """CKA of two kernels float64[N, N].

    Copies of a pair, as redrawing makes them, would look like structure that both sides share,
    and uneven weights would leave fewer pairs, of which CKA is larger. So groups are left out.
    """
    count = len(one)
    rng = numpy_generator(seed, "affinity", "alignment")
    orders = [rng.permutation(count) for _ in range(PERMUTATIONS)]
    chance = float(np.mean([_cka(one, other[np.ix_(o, o)]) for o in orders]))
    value = _cka(one, other)

    def of_some(kept: Indices) -> float:
        """CKA of some of the pairs."""
        some = np.ix_(kept, kept)
        return _cka(one[some], other[some])

    low, high = groups_left_out(value, rng.permutation(count), of_some)
    return Measured(value, low, high, chance, count)


def _cka(one: Floats, other: Floats) -> float:
    sides = [_centred(kernel) for kernel in (one, other)]
    shared, own, others = (float((sides[i] * sides[j]).sum()) for i, j in ((0, 1), (0, 0), (1, 1)))
    return shared / np.sqrt(own * others) if own * others > 0 else float("nan")


def _centred(kernel: Floats) -> Floats:
    """The kernel between features from which their mean is taken."""
    means = kernel.mean(axis=0)
    centred: Floats = np.asarray(kernel - means[:, None] - means[None, :] + means.mean())
    return centred


def _product(side: Features) -> Floats:
    rows = side.astype(np.float64) - side.mean(axis=0, dtype=np.float64)
    kernel: Floats = rows @ rows.T
    return kernel


def _gaussian(side: Features) -> Floats:
    product = _product(side)
    own = np.diag(product)
    squares = np.maximum(own[:, None] + own[None, :] - 2 * product, 0)
    # 1 where all items are alike: a width of 0 would divide by it.
    middle = float(np.median(squares[~np.eye(len(squares), dtype=bool)])) or 1.0
    kernel: Floats = np.exp(-squares / (2 * middle))
    return kernel


def _near(side: Features, count: int) -> Indices:
    rows = _unit(side)
    likeness = rows @ rows.T
    np.fill_diagonal(likeness, -np.inf)
    found: Indices = np.argsort(-likeness, axis=1, kind="stable")[:, :count]
    return found


def _unit(side: Features) -> Floats:
    rows = side.astype(np.float64)
    scaled: Floats = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-30)
    return scaled


Pairing = Callable[..., Measured]
PAIRINGS: dict[str, Pairing] = {
    "mutual_knn": neighbour_overlap,
    "linear_cka": linear_alignment,
    "kernel_cka": kernel_alignment,
}
"""Measures of paired items of any two widths; larger is more alike."""
