"""Packed attention: many samples in one row, and none of them sees another.

Registered once with transformers' attention interface under the name `PACKED`, so every model
whose attention goes through that interface packs, unmodified. The caller passes
`segments=Segments(...)` to the language's forward; the model hands it down to each attention
layer as it does with any other keyword.

On CUDA one `varlen_attn` call covers the row. On the CPU, and where scores are capped, have
sinks or are masked in chunks, segments of similar length share one padded causal call: no mask
over the pack is ever built, and right padding under a causal mask changes nothing that is kept.

What a language asks of its attention and this module does not know is refused, never ignored:
another way of reading packs is then tried (`structure/packing_choice.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from sailvit.core.errors import ModelError
from sailvit.models.packing.segments import PackedMask, Segments
from sailvit.models.packing.short_attention import short_attention
from sailvit.models.packing.tower_attention import TOWER, tower_attention

PACKED = "sailvit_packed"
"""Name of the implementation in transformers' attention interface."""

ROWS = "sailvit_rows"
"""Name of transformers' SDPA made to refuse what it would silently ignore."""

_WIDEST = 256
"""Widest heads, in channels, that the fused CUDA kernel takes."""

Row = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Query float[T, H, D], key float[T, G, D] and value float[T, G, C]; C may differ from D."""


@dataclass(frozen=True, eq=False)
class _Scoring:
    """How scores are made and masked."""

    scaling: float | None
    """Factor of scores; None: one over the square root of the head's width."""
    window: int | None
    """Positions that a query attends to, its own included; None: all up to its own."""
    mask: PackedMask | None
    """What the model's own mask allows of the causal positions; None: all."""
    softcap: float | None
    """Limit that scores are squashed below, as in Gemma 2; None: no limit."""
    sinks: torch.Tensor | None
    """float[H]: a score per head that takes attention and has no value, as in gpt-oss."""

    @property
    def plain(self) -> bool:
        """Whether a fused kernel with causal windows computes it all."""
        windowed = self.mask is None or self.mask.size == self.window
        return windowed and self.softcap is None and self.sinks is None


_IGNORED = {
    *("dropout", "is_causal", "position_ids", "cache_position", "position_embeddings"),
    *("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"),
}
"""Keywords that packed attention may ignore: it is causal and without dropout anyway, and the
others are for other kernels."""


def packed_attention(  # noqa: PLR0913 - the signature is transformers'
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | PackedMask | None,
    *,
    segments: Segments | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **keywords: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within segments, float[1, T, H, C], of query float[1, H, T, D], key
    float[1, G, T, D] and value float[1, G, T, C]; `softcap` caps scores, `s_aux` are sinks
    float[H].

    A language's attention dropout is not applied; current languages have none.

    Raises:
        ModelError: the language does not hand keywords down to its attention, or asks for what
            is not known here.
    """
    if segments is None:
        raise ModelError(
            f"{type(module).__name__} did not receive `segments`: this language does not pass"
            " keyword arguments down to its attention layers, so it cannot train packed in one row;"
            " set parallel.packing to rows or auto"
        )
    if isinstance(attention_mask, torch.Tensor):
        raise ModelError(f"{type(module).__name__} adds to its scores what it computes itself")
    _refuse_unknown(module, keywords)
    scoring = _Scoring(scaling, sliding_window, attention_mask, softcap, s_aux)
    fused = query.is_cuda and scoring.plain and query.shape[-1] <= _WIDEST
    attend = _attend_cuda if fused else _attend_buckets
    # Under autocast rotary embeddings leave query and key in fp32 while the value is in bf16,
    # which decides.
    row = (
        query[0].transpose(0, 1).to(value.dtype),
        key[0].transpose(0, 1).to(value.dtype),
        value[0].transpose(0, 1),
    )
    return attend(row, segments, scoring)[None], None


def _refuse_unknown(module: nn.Module, keywords: dict[str, Any]) -> None:
    for name, given in keywords.items():
        if name not in _IGNORED and isinstance(given, torch.Tensor):
            raise ModelError(
                f"{type(module).__name__} hands `{name}` to its attention, which is not known here"
            )


def _attend_cuda(row: Row, segments: Segments, scoring: _Scoring) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = row
    boundaries, longest = segments.boundaries, segments.longest
    # The kernel counts a window as the tokens to the left; transformers counts the query itself
    # too.
    window = scoring.window
    reach = (-1 if window is None or window >= longest else window - 1, 0)
    # The kernel has no version for float32.
    half = query.dtype if query.dtype in (torch.bfloat16, torch.float16) else torch.bfloat16
    # torch 2.11 takes fewer heads of keys than of queries without being told.
    told: dict[str, Any] = {}
    if "enable_gqa" in signature(varlen_attn).parameters:
        told = {"enable_gqa": query.shape[1] != key.shape[1]}
    # The kernel knows one width; zeros added to narrower values come out as zeros.
    narrower = query.shape[-1] - value.shape[-1]
    out = varlen_attn(
        query.to(half),
        key.to(half),
        (pad(value, (0, narrower)) if narrower else value).to(half),
        boundaries,
        boundaries,
        longest,
        longest,
        scale=scoring.scaling,
        window_size=reach,
        **told,
    )
    assert isinstance(out, torch.Tensor)
    return out[..., : value.shape[-1]].to(query.dtype)


# Compiled, it would be compiled anew for every pack, as each has buckets of other shapes.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend_buckets(row: Row, segments: Segments, scoring: _Scoring) -> torch.Tensor:
    query, key, value = row
    groups = query.shape[1] // key.shape[1]
    # The written-out products need a key head for every query head.
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    outputs = []
    for rows in segments.buckets:
        allowed = _allowed(rows, scoring)
        heads = [_take(tensor, rows).transpose(1, 2) for tensor in (query, key, value)]
        if scoring.softcap is not None or scoring.sinks is not None:
            out = _written_attention(heads, allowed, scoring)
        else:
            out = short_attention(heads[0], heads[1], heads[2], allowed, scoring.scaling)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, segments.inverse)


def _allowed(rows: torch.Tensor, scoring: _Scoring) -> torch.Tensor:
    """bool[L, L]: what a position may attend to within segments at int64[S, L] positions."""
    length = rows.shape[1]
    mask, window = scoring.mask, scoring.window
    if mask is not None and mask.size < length:
        # All segments are masked alike, and the last one of a bucket is its longest.
        return mask.allowed(rows[-1])
    allowed = torch.ones(length, length, dtype=torch.bool, device=rows.device).tril()
    if mask is None and window is not None and window < length:
        allowed = allowed.triu(1 - window)
    return allowed


def _written_attention(
    heads: Sequence[torch.Tensor], allowed: torch.Tensor, scoring: _Scoring
) -> torch.Tensor:
    """Attention float[S, H, L, C] with capped scores or sinks, which fused kernels do not have.

    All scores are held, as in transformers' own eager attention.
    """
    query, key, value = heads
    scale = query.shape[-1] ** -0.5 if scoring.scaling is None else scoring.scaling
    scores = (query @ key.transpose(-2, -1)) * scale
    if scoring.softcap is not None:
        scores = (scores / scoring.softcap).tanh() * scoring.softcap
    scores = scores.masked_fill(~allowed, float("-inf"))
    # Softmax in float32, as in transformers' eager attention, which the proof compares with.
    if scoring.sinks is None:
        return scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value
    # One more key per head, whose share of the attention is dropped.
    sinks = scoring.sinks.to(scores.dtype).reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
    shares = torch.cat([scores, sinks], dim=-1).softmax(dim=-1, dtype=torch.float32)[..., :-1]
    return shares.to(value.dtype) @ value


def _take(tensor: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """`tensor[rows]`, float[S, L, H, D], with a backward pass four times as fast as its own."""
    return tensor.index_select(0, rows.flatten()).reshape(*rows.shape, *tensor.shape[1:])


def rows_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **keywords: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' SDPA, float[S, L, H, D] of query, key and value float[S, H, L, D].

    Raises:
        ModelError: the language asks for what SDPA would ignore: capped scores, sinks, or any
            tensor that is not known here.
    """
    if keywords.get("softcap") is not None or keywords.get("s_aux") is not None:
        raise ModelError(f"{type(module).__name__} caps its scores or has attention sinks")
    _refuse_unknown(module, keywords)
    attended: tuple[torch.Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, **keywords
    )
    return attended


def _packed_mask(
    *_: Any,
    mask_function: Callable[..., Any] | None = None,
    local_size: int | None = None,
    use_vmap: bool = False,
    **__: Any,
) -> PackedMask | None:
    """None, as segments say all that a mask would; a `PackedMask` for a layer with a window or
    chunks.
    """
    # transformers sets it where a model combines the causal mask with a function of its own.
    if use_vmap:
        raise ModelError("the language has a mask of its own besides the causal one")
    if local_size is None or mask_function is None:
        return None
    return PackedMask(mask_function, local_size)


def register_attention() -> None:
    """Make `PACKED`, `ROWS` and `TOWER` known to transformers; repeating it changes nothing."""
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, _packed_mask)
    AttentionInterface.register(ROWS, rows_attention)
    AttentionMaskInterface.register(ROWS, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    AttentionInterface.register(TOWER, tower_attention)
    AttentionMaskInterface.register(TOWER, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
