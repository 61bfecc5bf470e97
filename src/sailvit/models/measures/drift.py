"""Drift: how alike two sets of features of the same things are."""

from __future__ import annotations

import torch


def linear_cka(features: torch.Tensor, base: torch.Tensor) -> float:
    """Linear CKA (arXiv 1905.00414) of float[N, D] and float[N, E], rows of the same things: 1
    alike, 0 unrelated.

    It does not see rotations and a change of scale, which a connector undoes. With fewer rows
    than a few times the width it is too high; N should be well above D. NaN where one side does
    not vary at all.
    """
    one, other = (side.double() - side.double().mean(dim=0) for side in (features, base))
    shared, own, others = (
        torch.linalg.matrix_norm(a.T @ b) for a, b in ((one, other), (one, one), (other, other))
    )
    return float(shared**2 / (own * others))
