"""Heads on frozen features: a linear layer, two layers, and pooling by attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

HeadKind = Literal["mlp", "linear", "attentive", "segmentation"]
"""A head: `mlp` is the paper's, `segmentation` a linear layer on every patch."""
_EXPANSION = 4
"""Width between the two layers of `mlp`, in widths of the tower. The paper does not say it; blocks of
a ViT have 4."""
_HEAD_WIDTH = 64
"""Numbers of an attention head."""


class Standardised(nn.Module):
    """Features less their mean, divided by their deviation, both of the training set: what a batch
    norm without weights comes to, without its two modes.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        # A channel that never varies says nothing, and must not become infinite.
        self.register_buffer("scale", deviation.clamp_min(1e-6).reciprocal())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Standardised features float[B, D] or float[B, P, D]."""
        return (features.float() - self.mean) * self.scale


class AttentivePool(nn.Module):
    """One learned query per attention head that looks at all patches, as in AIM's and AIMv2's
    attentive probes.

    Keys and values are never made: a query times keys is the query times their matrix, once, times
    the patches, and a weighted sum of values is their matrix times the weighted sum of patches. The
    same numbers for a 64th of the products, as a head is 64 wide.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // _HEAD_WIDTH)
        # 200 // 64 is 3, which does not divide 200: then fewer heads, as all must be equally wide.
        while width % self.heads:
            self.heads -= 1
        self.query = nn.Parameter(0.02 * torch.randn(self.heads, width // self.heads))
        # Without a bias, which would add the same to all scores of a query.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Pooled features float[B, D] of patch features float[B, P, D]."""
        split = (self.heads, -1, patches.shape[-1])
        asked = torch.einsum("hk,hkd->hd", self.query, self.key.weight.view(split))
        scores = patches @ asked.T / self.query.shape[1] ** 0.5
        mixed = scores.softmax(dim=1).transpose(1, 2) @ patches
        pooled = torch.einsum("bhd,hkd->bhk", mixed, self.value.weight.view(split))
        return pooled.flatten(1) + self.value.bias


def _mlp(width: int, classes: int) -> nn.Module:
    inner = _EXPANSION * width
    return nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, classes))


def _attentive(width: int, classes: int) -> nn.Module:
    return nn.Sequential(AttentivePool(width), nn.Linear(width, classes))


HEADS: dict[HeadKind, Callable[[int, int], nn.Module]] = {
    "mlp": _mlp,
    "linear": nn.Linear,
    "attentive": _attentive,
    "segmentation": nn.Linear,
}
"""Makers of heads from the width of features and the number of classes."""
