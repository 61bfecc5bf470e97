"""The attention of towers: among all tokens of a tile, or of each picture of a packed row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from sailvit.models.packing.segments import Segments
from sailvit.models.packing.short_attention import short_attention

TOWER = "sailvit_tower"
"""Name of the towers' implementation: transformers' SDPA, with a faster way for short bf16 rows
on the CPU, and with one for several pictures in a row."""

_HALF = (torch.bfloat16, torch.float16)
"""Types that the fused CUDA kernel takes."""


_SEGMENTS: ContextVar[Segments | None] = ContextVar("segments", default=None)
"""Where the pictures of a row lie, while a block runs on it: several families hand no keyword
down to their attention."""


@contextmanager
def attending_within(segments: Segments | None) -> Iterator[None]:
    """A context in which towers attend within segments of a row; None: among all tokens."""
    token = _SEGMENTS.set(segments)
    try:
        yield
    finally:
        _SEGMENTS.reset(token)


def tower_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *rest: Any,
    **keywords: Any,
) -> tuple[torch.Tensor, None]:
    """Attention among all tokens of a tile, float[I, T, H, D], of query, key and value float[I,
    H, T, D]; among those of each picture of the one row inside `attending_within`.

    transformers' own SDPA, except for short rows in bf16 on the CPU.
    """
    mask = rest[0] if rest else keywords.get("attention_mask")
    plain = mask is None and not keywords.get("dropout")
    segments = _SEGMENTS.get()
    if segments is not None:
        return _within(query, key, value, segments, keywords.get("scaling")), None
    if query.device.type == "cpu" and plain and query.dtype == torch.bfloat16:
        return short_attention(query, key, value, scaling=keywords.get("scaling")).transpose(
            1, 2
        ).contiguous(), None
    attended: tuple[torch.Tensor, None] = sdpa_attention_forward(
        module, query, key, value, *rest, **keywords
    )
    return attended


def _within(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    scaling: float | None,
) -> torch.Tensor:
    """Attention float[1, T, H, D] within the segments of a row, of float[1, H, T, D] each."""
    # Under autocast rotary embeddings leave query and key in fp32, and the value decides.
    row = [tensor[0].transpose(0, 1).to(value.dtype) for tensor in (query, key, value)]
    if query.is_cuda and value.dtype in _HALF:
        from torch.nn.attention.varlen import varlen_attn

        bounds, longest = segments.boundaries, segments.longest
        found = varlen_attn(
            *(row[0], row[1], row[2], bounds, bounds, longest, longest),
            scale=scaling,
            window_size=(-1, -1),
        )
        assert isinstance(found, torch.Tensor)
        return found[None]
    made = []
    # Segments of equal length share a call: without a causal mask, padding would be seen.
    for places in segments.equal:
        taken = [
            tensor.index_select(0, places.flatten()).view(*places.shape, *tensor.shape[1:])
            for tensor in row
        ]
        heads = [tensor.transpose(1, 2) for tensor in taken]
        out = short_attention(heads[0], heads[1], heads[2], scaling=scaling)
        made.append(out.transpose(1, 2).flatten(0, 1))
    order = torch.cat([places.flatten() for places in segments.equal])
    return torch.cat(made).index_select(0, order.argsort())[None]
