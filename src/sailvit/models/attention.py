"""Packed attention: many samples in one row, none sees another.

Registered once with transformers' attention interface under the name `PACKED`, so every model whose attention goes
through that interface packs, unmodified. The caller passes `segments=Segments(...)` to the language's forward; the
model hands it down to each attention layer as it does with any other keyword.

On CUDA one `varlen_attn` call covers the row. On CPU segments of similar length share one padded causal call: no mask
over the pack is ever built, and right padding under a causal mask changes nothing that is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from sailvit.core.errors import ModelError

PACKED = "sailvit_packed"
"""Name of the implementation in transformers' attention interface."""

_WASTE = 1.25
"""Most padded over shortest length within a bucket; more buckets are more calls, longer ones more padding."""


@dataclass(frozen=True)
class Bucket:
    """Segments of similar length, attended to in one call."""

    rows: torch.Tensor
    """int64[S, L]: positions of each segment in the row, its last one repeated up to L."""
    window_free: int
    """L: a sliding window at least this long changes nothing."""


@dataclass(frozen=True)
class Segments:
    """Where the samples of a packed row lie."""

    boundaries: torch.Tensor
    """int32[S + 1]: start of every segment, then the row's length."""
    longest: int
    """Length of the longest segment, in tokens."""

    @cached_property
    def buckets(self) -> tuple[Bucket, ...]:
        """Segments grouped by length; made once per batch and shared by all layers."""
        starts = self.boundaries[:-1].long()
        lengths = self.boundaries.diff().long()
        order = lengths.argsort(stable=True)
        groups: list[list[int]] = []
        for index in order.tolist():
            if groups and lengths[index] <= _WASTE * lengths[groups[-1][0]]:
                groups[-1].append(index)
            else:
                groups.append([index])
        return tuple(self._bucket(starts[group], lengths[group]) for group in groups)

    @cached_property
    def inverse(self) -> torch.Tensor:
        """int64[T]: where each position of the row lies in the concatenated, flattened buckets."""
        rows = torch.cat([bucket.rows.flatten() for bucket in self.buckets])
        inverse = torch.empty(int(self.boundaries[-1]), dtype=torch.long)
        # A segment's last position occurs again in its padding; writing backwards leaves the first occurrence.
        inverse[rows.flip(0)] = torch.arange(len(rows) - 1, -1, -1)
        return inverse

    @staticmethod
    def _bucket(starts: torch.Tensor, lengths: torch.Tensor) -> Bucket:
        longest = int(lengths.max())
        offsets = torch.minimum(torch.arange(longest)[None, :], lengths[:, None] - 1)
        return Bucket(rows=starts[:, None] + offsets, window_free=longest)


Row = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Query float[T, H, D], key and value float[T, G, D]."""


def packed_attention(  # noqa: PLR0913 - the signature is transformers'
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    segments: Segments | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within segments, float[1, T, H, D], of query float[1, H, T, D], key and value float[1, G, T, D].

    Raises:
        ModelError: the language does not hand keywords down to its attention, or asks for soft-capped scores.
    """
    if segments is None:
        raise ModelError(
            f"{type(module).__name__} did not receive `segments`: this language does not pass keyword arguments down"
            " to its attention layers, so it cannot train packed; use one that does (Qwen, Llama, SmolLM3, Gemma)"
        )
    if softcap is not None:
        raise ModelError(
            f"{type(module).__name__} caps attention scores (softcap={softcap}), which packed attention does not do;"
            " choose a language without attn_logit_softcapping"
        )
    attend = _attend_cuda if query.is_cuda else _attend_cpu
    row = (query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1))
    return attend(row, segments, scaling, sliding_window)[None], None


def _attend_cuda(row: Row, segments: Segments, scaling: float | None, window: int | None) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = row
    boundaries, longest = segments.boundaries, segments.longest
    # The kernel counts a window as the tokens to the left; transformers counts the query itself too.
    reach = (-1 if window is None or window >= longest else window - 1, 0)
    half = query.dtype if query.dtype in (torch.bfloat16, torch.float16) else torch.bfloat16
    out = varlen_attn(
        query.to(half),
        key.to(half),
        value.to(half),
        boundaries,
        boundaries,
        longest,
        longest,
        scale=scaling,
        window_size=reach,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(out, torch.Tensor)
    return out.to(query.dtype)


def _attend_cpu(row: Row, segments: Segments, scaling: float | None, window: int | None) -> torch.Tensor:
    query, key, value = row
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    outputs = []
    for bucket in segments.buckets:
        mask = _band(bucket.window_free, window) if window is not None and window < bucket.window_free else None
        q, k, v = (tensor[bucket.rows].transpose(1, 2) for tensor in (query, key, value))
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)[segments.inverse]


def _band(length: int, window: int) -> torch.Tensor:
    ones = torch.ones(length, length, dtype=torch.bool)
    return ones.tril().triu(1 - window)


def _no_mask(*_: Any, **__: Any) -> None:
    """No mask tensor: segments carry all there is to know."""


def register_packed_attention() -> None:
    """Make `PACKED` known to transformers; repeating it changes nothing."""
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, _no_mask)
