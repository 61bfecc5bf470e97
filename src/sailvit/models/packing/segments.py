"""Where the samples of a packed row lie, and what a layer may attend to within them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch.nn.functional import pad

_SMALL = 64
"""Segments up to this many positions share a call whatever their lengths: calls cost more than
padding there."""

_WASTE = 1.25
"""Longest over shortest length within a bucket, at most: less means more calls, more means more
padding."""


@dataclass(frozen=True)
class Segments:
    """Where the samples of a packed row lie."""

    boundaries: torch.Tensor
    """int32[S + 1]: start of every segment, then the row's length."""
    longest: int
    """Length of the longest segment, in tokens."""

    @cached_property
    def buckets(self) -> tuple[torch.Tensor, ...]:
        """Groups of similar length, int64[S, L] each: the positions of every segment, its last
        one repeated up to L.

        Made once per batch and shared by all layers.
        """
        starts = self.boundaries[:-1].long()
        lengths = self.boundaries.diff().long()
        # A list: compared on the device, every segment would cost a wait for it.
        sizes = lengths.tolist()
        groups: list[list[int]] = []
        for index in lengths.argsort(stable=True).tolist():
            if groups and sizes[index] <= max(_WASTE * sizes[groups[-1][0]], _SMALL):
                groups[-1].append(index)
            else:
                groups.append([index])
        return tuple(_positions(starts[group], lengths[group]) for group in groups)

    @cached_property
    def equal(self) -> tuple[torch.Tensor, ...]:
        """Groups of equal length, int64[S, L] each: the positions of every segment."""
        sizes = self.boundaries.diff().tolist()
        starts = self.boundaries[:-1].long()
        groups: dict[int, list[int]] = {}
        for index, size in enumerate(sizes):
            groups.setdefault(size, []).append(index)
        return tuple(
            starts[group][:, None] + torch.arange(size, device=starts.device)
            for size, group in groups.items()
        )

    @cached_property
    def inverse(self) -> torch.Tensor:
        """int64[T]: where each position of the row lies in the flattened, joined buckets."""
        rows = torch.cat([rows.flatten() for rows in self.buckets])
        # A segment's last position occurs again in its padding; only its first occurrence has
        # the right causal output.
        first = torch.cat(
            [pad(rows.diff(dim=1) > 0, (1, 0), value=True).flatten() for rows in self.buckets]
        )
        inverse = torch.empty(int(self.boundaries[-1]), dtype=torch.long, device=rows.device)
        inverse[rows[first]] = first.nonzero().flatten()
        return inverse


def _positions(starts: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    reach = torch.arange(int(lengths.max()), device=lengths.device)
    offsets = torch.minimum(reach[None, :], lengths[:, None] - 1)
    return starts[:, None] + offsets


@dataclass(frozen=True, eq=False)
class PackedMask:
    """What a layer may attend to of the causal positions: the last `size` of them, or those of
    the query's own chunk.
    """

    function: Callable[..., Any]
    """transformers' mask function over batch, head, query and key indices."""
    size: int
    """Positions of the window or of a chunk."""
    _made: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)
    """Masks made so far, by first position and length."""

    def allowed(self, positions: torch.Tensor) -> torch.Tensor:
        """bool[L, L] of the segment at int64[L] positions of the row; made once for all layers."""
        key = int(positions[0]), len(positions)
        if key not in self._made:
            self._made[key] = self.function(0, 0, positions[:, None], positions[None, :])
        return self._made[key]
