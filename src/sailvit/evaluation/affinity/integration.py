"""The modality integration rate (MIR, arXiv 2410.07167): how far visual and text tokens lie apart
inside the language, over its layers; smaller is better integrated.

Per layer, as its authors' code has it: both sides are scaled by the mean length of the text
tokens; tokens whose length is more than three standard deviations from the median length become
the median token; then the Frechet distance between the two Gaussians. MIR is the decimal
logarithm of the sum over layers. Their fast mode approximates the root of a matrix; this is the
exact one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sailvit.core.seeding import numpy_generator
from sailvit.evaluation.affinity.resampling import Indices, Measured, redrawn

_DRAWS = 20
"""Redrawn sets of its interval: each takes two decompositions per layer."""

Layers = Sequence[torch.Tensor]
"""A tensor float[n, D] per layer: the tokens of one item."""


@dataclass(frozen=True)
class Integration:
    """The rate, and what it is made of."""

    rate: Measured
    """MIR."""
    layers: list[float]
    """The distance in each layer, first to last."""


def integration_rate(
    visual: Sequence[Layers], text: Sequence[Layers], *, seed: int = 0
) -> Integration:
    """MIR of the hidden states of items, each a picture with its text; items are redrawn.

    The baseline deals the tokens of both sides anew.
    """
    rng = numpy_generator(seed, "affinity", "integration")
    count, depth = len(visual), len(visual[0])

    def distances(drawn: Indices) -> list[float]:
        """The distance per layer for redrawn items."""
        return [
            layer_distance(
                *(torch.cat([side[item][layer] for item in drawn]) for side in (visual, text))
            )
            for layer in range(depth)
        ]

    everything = distances(torch.arange(count).numpy())
    low, high = redrawn(count, lambda drawn: _rate(distances(drawn)), rng, _DRAWS)
    dealt = []
    for layer in range(depth):
        pool = [torch.cat([item[layer] for item in side]) for side in (visual, text)]
        # Dealt token by token, not item by item: that is the distance where both sides are of one
        # kind.
        both = torch.cat(pool)
        order = torch.from_numpy(rng.permutation(len(both)))
        dealt.append(layer_distance(both[order[: len(pool[0])]], both[order[len(pool[0]) :]]))
    return Integration(Measured(_rate(everything), low, high, _rate(dealt), count), everything)


def _rate(distances: Sequence[float]) -> float:
    return float(torch.tensor(distances, dtype=torch.float64).sum().log10())


def layer_distance(visual: torch.Tensor, text: torch.Tensor) -> float:
    """The Frechet distance of float[N, D] and float[M, D], scaled and without outliers."""
    scale = 1 / text.double().norm(dim=-1).mean()
    return frechet(*(_without_outliers(side.double() * scale) for side in (visual, text)))


def _without_outliers(tokens: torch.Tensor) -> torch.Tensor:
    lengths = tokens.norm(dim=-1)
    far = (lengths - lengths.median()).abs() > 3 * lengths.std()
    return torch.where(far[:, None], tokens.median(dim=0).values, tokens)


def frechet(one: torch.Tensor, other: torch.Tensor) -> float:
    """The squared Frechet distance of the Gaussians with the means and covariances of float[N, D]
    and float[M, D].
    """
    gap = one.mean(dim=0) - other.mean(dim=0)
    sides = [(side - side.mean(dim=0)) / max(len(side) - 1, 1) ** 0.5 for side in (one, other)]
    # tr (A'A B'B)^(1/2) is the sum of the singular values of A B', of which the smaller Gram matrix
    # gives the squares.
    product = sides[0] @ sides[1].T
    # The smaller side decides the cost: 2,000 visual and 300 text tokens need a 300 x 300 matrix.
    product = product if product.shape[0] <= product.shape[1] else product.T
    common = torch.linalg.eigvalsh(product @ product.T).clamp(min=0).sqrt().sum()
    spread = sum(float(side.square().sum()) for side in sides)
    return float(gap.square().sum()) + spread - 2 * float(common)
