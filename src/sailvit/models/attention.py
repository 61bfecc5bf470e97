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
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from sailvit.core.errors import ModelError

PACKED = "sailvit_packed"
"""Name of the implementation in transformers' attention interface."""

TOWER = "sailvit_tower"
"""Name of the towers' implementation: transformers' SDPA, with a faster way for short bf16 rows on the CPU."""

_SHORT = 512
"""Longest row of scores, in positions, that is cheaper written out than fused on the CPU."""

_SMALL = 64
"""Segments up to this many positions share a call whatever their lengths: calls cost more than padding there."""

_WASTE = 1.25
"""Most padded over shortest length within a bucket; more buckets are more calls, longer ones more padding."""


@dataclass(frozen=True)
class Segments:
    """Where the samples of a packed row lie."""

    boundaries: torch.Tensor
    """int32[S + 1]: start of every segment, then the row's length."""
    longest: int
    """Length of the longest segment, in tokens."""

    @cached_property
    def buckets(self) -> tuple[torch.Tensor, ...]:
        """Per group of similar length int64[S, L]: positions of each segment, its last one repeated up to L.

        Made once per batch and shared by all layers.
        """
        starts = self.boundaries[:-1].long()
        lengths = self.boundaries.diff().long()
        sizes = lengths.tolist()
        groups: list[list[int]] = []
        for index in lengths.argsort(stable=True).tolist():
            if groups and sizes[index] <= max(_WASTE * sizes[groups[-1][0]], _SMALL):
                groups[-1].append(index)
            else:
                groups.append([index])
        return tuple(_positions(starts[group], lengths[group]) for group in groups)

    @cached_property
    def inverse(self) -> torch.Tensor:
        """int64[T]: where each position of the row lies in the concatenated, flattened buckets."""
        rows = torch.cat([rows.flatten() for rows in self.buckets])
        # A segment's last position occurs again in its padding, where the causal output is another one.
        first = torch.cat(
            [pad(rows.diff(dim=1) > 0, (1, 0), value=True).flatten() for rows in self.buckets]
        )
        inverse = torch.empty(int(self.boundaries[-1]), dtype=torch.long)
        inverse[rows[first]] = first.nonzero().flatten()
        return inverse


def _positions(starts: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    offsets = torch.minimum(torch.arange(int(lengths.max()))[None, :], lengths[:, None] - 1)
    return starts[:, None] + offsets


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
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within segments, float[1, T, H, D], of query float[1, H, T, D], key and value float[1, G, T, D].

    A language's attention dropout is not applied; current ones are made without.

    Raises:
        ModelError: the language does not hand keywords down to its attention, or asks for capped scores or sinks.
    """
    if segments is None:
        raise ModelError(
            f"{type(module).__name__} did not receive `segments`: this language does not pass keyword arguments down"
            " to its attention layers, so it cannot train packed; use one that does (Qwen, Llama, SmolLM3, Gemma)"
        )
    if softcap is not None or s_aux is not None:
        asked = (
            "caps its scores (softcap)" if softcap is not None else "has attention sinks (s_aux)"
        )
        raise ModelError(
            f"{type(module).__name__} {asked}, which packed attention does not do; choose a language without"
            " (Qwen, Llama, SmolLM3, Gemma, Gemma3)"
        )
    attend = _attend_cuda if query.is_cuda else _attend_cpu
    # Under autocast rotary embeddings leave query and key in fp32 while the value is in bf16, which decides.
    row = (
        query[0].transpose(0, 1).to(value.dtype),
        key[0].transpose(0, 1).to(value.dtype),
        value[0].transpose(0, 1),
    )
    return attend(row, segments, scaling, sliding_window)[None], None


def _attend_cuda(
    row: Row, segments: Segments, scaling: float | None, window: int | None
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = row
    boundaries, longest = segments.boundaries, segments.longest
    # The kernel counts a window as the tokens to the left; transformers counts the query itself too.
    reach = (-1 if window is None or window >= longest else window - 1, 0)
    half = query.dtype if query.dtype in (torch.bfloat16, torch.float16) else torch.bfloat16
    # torch 2.11 takes fewer heads of keys than of queries without being told.
    told: dict[str, Any] = {}
    if "enable_gqa" in signature(varlen_attn).parameters:
        told = {"enable_gqa": query.shape[1] != key.shape[1]}
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
        **told,
    )
    assert isinstance(out, torch.Tensor)
    return out.to(query.dtype)


def _attend_cpu(
    row: Row, segments: Segments, scaling: float | None, window: int | None
) -> torch.Tensor:
    query, key, value = row
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    outputs = []
    for rows in segments.buckets:
        length = rows.shape[1]
        allowed = torch.ones(length, length, dtype=torch.bool).tril()
        if window is not None and window < length:
            allowed = allowed.triu(1 - window)
        heads = [_take(tensor, rows).transpose(1, 2) for tensor in (query, key, value)]
        out = short_attention(heads[0], heads[1], heads[2], allowed, scaling)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, segments.inverse)


def _take(tensor: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """`tensor[rows]`, float[S, L, H, D], with a backward pass four times faster than indexing's."""
    return tensor.index_select(0, rows.flatten()).reshape(*rows.shape, *tensor.shape[1:])


def short_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    allowed: torch.Tensor | None = None,
    scaling: float | None = None,
) -> torch.Tensor:
    """Attention float[S, H, L, D] on the CPU, by what is fastest there; `allowed` is bool[L, L].

    In bf16 and up to 512 positions two batched matrix products beat the fused CPU kernel 1.2 to 8 times, forward and
    backward (`benchmarks/cpu_attention.py`).
    """
    length = query.shape[2]
    if query.dtype != torch.bfloat16 or length > _SHORT:
        return scaled_dot_product_attention(query, key, value, attn_mask=allowed, scale=scaling)
    bias = query.new_zeros(length, length)
    if allowed is not None:
        bias.masked_fill_(~allowed, float("-inf"))
    q, k, v = (tensor.flatten(0, 1) for tensor in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.baddbmm(bias.expand(len(q), -1, -1), q, k.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(dim=-1), v).reshape(query.shape)


def tower_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *rest: Any,
    **keywords: Any,
) -> tuple[torch.Tensor, None]:
    """Attention among all tokens of a tile, float[I, T, H, D], of query, key and value float[I, H, T, D].

    transformers' own, but for the short bf16 case on the CPU.
    """
    mask = rest[0] if rest else keywords.get("attention_mask")
    plain = mask is None and not keywords.get("dropout")
    if query.device.type == "cpu" and plain and query.dtype == torch.bfloat16:
        return short_attention(query, key, value, scaling=keywords.get("scaling")).transpose(
            1, 2
        ).contiguous(), None
    attended: tuple[torch.Tensor, None] = sdpa_attention_forward(
        module, query, key, value, *rest, **keywords
    )
    return attended


def _no_mask(*_: Any, **__: Any) -> None:
    """No mask tensor: segments carry all there is to know."""


def register_attention() -> None:
    """Make `PACKED` and `TOWER` known to transformers; repeating it changes nothing."""
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, _no_mask)
    AttentionInterface.register(TOWER, tower_attention)
    AttentionMaskInterface.register(TOWER, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
