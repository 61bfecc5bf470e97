"""Distances of visual tokens to a language's embeddings where both live: in full width, behind
the connector.

A picture of two dimensions may show a few per cent of the variance, and a connector that merely
shrinks its output comes closer in it. Here nothing is projected, and every distance is given a
second time with all rows scaled to length 1 (`unit_`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sailvit.core.seeding import numpy_generator
from sailvit.evaluation.affinity.resampling import (
    Floats,
    Indices,
    Measured,
    by_item,
    mean_of_items,
)
from sailvit.evaluation.affinity.slices import centroids, project, sliced
from sailvit.models.measures.rows import BLOCK, Rows, blocks, picked

_VISUAL = 2048
"""Most visual tokens compared with the whole table: 150,000 rows of width 2048 take 40 seconds on
one core."""
_DEALT = 256
"""Rows dealt to the visual side in a permutation of labels, each compared with the whole table."""
_DEALS = 4
"""Permutations of labels."""


@dataclass(frozen=True)
class _Side:
    """Rows, or their scaled copies, as the measures need them."""

    nearest: Floats
    """float64[N]: distance of each visual token to the nearest row."""
    mean: Floats
    """float64[N]: mean distance to all rows."""


def joint_distances(
    images: Sequence[NDArray[Any]], text: Rows, *, seed: int = 0
) -> dict[str, Measured]:
    """Distances of visual tokens, float[V, D] per image, to rows float[M, D]; smaller is closer.

    `nearest`, `mean`, `centroids` and `sliced_wasserstein` (see `slices`), each also as `unit_`.
    Intervals redraw images; the baseline deals the rows of both sides anew.
    """
    visual, items = _thinned(images, seed)
    shares = _DEALT if len(visual) > _DEALT else len(visual)
    measured = {}
    sides = _compare(visual, text)
    dealt = _dealt(visual, text, shares, seed)
    rng = numpy_generator(seed, "affinity", "joint")
    for name, chance in (("", dealt[0]), ("unit_", dealt[1])):
        side = sides[bool(name)]
        for measure, values in (("nearest", side.nearest), ("mean", side.mean)):
            means = by_item(values, items)
            measured[name + measure] = mean_of_items(means, rng, chance=chance[measure])
        clouds = project(visual, text, items, unit=bool(name), seed=seed)
        found = {"centroids": centroids(clouds, rng), "sliced_wasserstein": sliced(clouds, rng)}
        measured |= {name + measure: each for measure, each in found.items()}
    return measured


def _thinned(images: Sequence[NDArray[Any]], seed: int) -> tuple[NDArray[np.float32], Indices]:
    """Equal shares of visual tokens of each image, and the image of each."""
    most = max(1, _VISUAL // len(images))
    rng = numpy_generator(seed, "affinity", "tokens")
    kept = [
        image[np.sort(rng.choice(len(image), min(most, len(image)), replace=False))]
        for image in images
    ]
    items = np.repeat(np.arange(len(kept)), [len(each) for each in kept])
    return np.concatenate(kept).astype(np.float32), items


def _compare(visual: NDArray[np.float32], text: Rows, skip: Indices | None = None) -> list[_Side]:
    """Distances to all rows but those at the positions `skip`, as they are and between unit
    rows; one product of matrices serves both.
    """
    squares = np.einsum("nd,nd->n", visual, visual).astype(np.float64)
    lengths = np.sqrt(squares) + np.finfo(np.float64).tiny
    least = [np.full(len(visual), np.inf), np.full(len(visual), np.inf)]
    total = [np.zeros(len(visual)), np.zeros(len(visual))]
    for start, block in zip(range(0, len(text), BLOCK), blocks(text), strict=True):
        rows = block.astype(np.float32)
        # Dealt rows stand on the visual side; each would otherwise find itself, at distance 0.
        if skip is not None:
            rows = rows[~np.isin(np.arange(start, start + len(rows)), skip)]
        if not len(rows):
            continue
        others = np.einsum("nd,nd->n", rows, rows).astype(np.float64)
        # Parts of the visual side, so that a block of distances takes 16 MB.
        for at in range(0, len(visual), BLOCK // 32):
            part = slice(at, at + BLOCK // 32)
            # In float32, where a product with the whole table costs half; only its result is
            # widened.
            product = (visual[part] @ rows.T).astype(np.float64)
            cosine = product / (lengths[part, None] * (np.sqrt(others) + 1e-30))
            for kind, square in enumerate(
                (squares[part, None] + others - 2 * product, 2 - 2 * cosine)
            ):
                distance = np.sqrt(np.maximum(square, 0))
                least[kind][part] = np.minimum(least[kind][part], distance.min(axis=1))
                total[kind][part] += distance.sum(axis=1)
    count = len(text) - (0 if skip is None else len(skip))
    return [_Side(near, sums / count) for near, sums in zip(least, total, strict=True)]


class _Pool:
    """The visual tokens and the text rows as one table."""

    def __init__(self, visual: NDArray[np.float32], text: Rows) -> None:
        self._visual, self._text = visual, text
        self.width = text.width

    def __len__(self) -> int:
        return len(self._visual) + len(self._text)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows start to stop, float[n, D]."""
        count = len(self._visual)
        ours = self._visual[start:stop]
        theirs = self._text.read(max(start - count, 0), max(stop - count, 0))
        return np.concatenate([ours, theirs]).astype(np.float32)


def _dealt(
    visual: NDArray[np.float32], text: Rows, share: int, seed: int
) -> list[dict[str, float]]:
    """Mean nearest and mean distance of rows that were dealt at random to the visual side."""
    pool, rng = _Pool(visual, text), numpy_generator(seed, "affinity", "dealt")
    found: list[list[tuple[float, float]]] = [[], []]
    for _ in range(_DEALS):
        chosen = np.sort(rng.choice(len(pool), share, replace=False))
        for kind, side in enumerate(_compare(picked(pool, chosen), pool, chosen)):
            found[kind].append((float(side.nearest.mean()), float(side.mean.mean())))
    means = [np.mean(kind, axis=0) for kind in found]
    return [{"nearest": float(near), "mean": float(mean)} for near, mean in means]
