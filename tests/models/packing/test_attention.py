"""Packed attention: buckets lose nothing, the fast path agrees with torch's, and what cannot pack says so."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from sailvit.core.errors import ModelError
from sailvit.models.packing.attention import (
    packed_attention,
    rows_attention,
)
from sailvit.models.packing.segments import PackedMask, Segments
from sailvit.models.packing.short_attention import short_attention
from sailvit.models.packing.tower_attention import tower_attention


def segments_of(lengths: list[int]) -> Segments:
    boundaries = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return Segments(boundaries, max(lengths))


def heads(
    count: int, length: int, width: int = 8, seed: int = 0, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    return torch.randn(1, count, length, width, generator=torch.Generator().manual_seed(seed)).to(
        dtype
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=25))
def test_buckets_hold_every_position_and_the_inverse_finds_it(lengths: list[int]):
    segments = segments_of(lengths)
    total = sum(lengths)
    rows = torch.cat([bucket.flatten() for bucket in segments.buckets])
    assert torch.equal(rows[segments.inverse], torch.arange(total))
    assert sum(len(bucket) for bucket in segments.buckets) == len(lengths)
    # Short segments share a call whatever their lengths; long ones are padded by a quarter at most.
    for bucket in segments.buckets:
        shortest = min(int(row.unique().numel()) for row in bucket)
        assert bucket.shape[1] <= max(1.25 * shortest, 64)
    # The place found is the position itself, not the padding that repeats it.
    padded = torch.cat(
        [torch.cat([row.new_tensor([-1]), row[:-1]]) == row for b in segments.buckets for row in b]
    )
    assert not padded[segments.inverse].any()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.sampled_from([None, 1, 4, 100]))
def test_a_row_equals_its_segments(lengths: list[int], window: int | None):
    query, key, value = (
        heads(4, sum(lengths), seed=1),
        heads(2, sum(lengths), seed=2),
        heads(2, sum(lengths), seed=3),
    )
    found, _ = packed_attention(
        nn.Identity(),
        query,
        key,
        value,
        None,
        segments=segments_of(lengths),
        sliding_window=window,
        scaling=0.3,
    )
    start, expected = 0, []
    for length in lengths:
        own = [tensor[:, :, start : start + length] for tensor in (query, key, value)]
        allowed = torch.ones(length, length, dtype=torch.bool).tril()
        if window is not None:
            allowed &= torch.arange(length)[:, None] - torch.arange(length)[None] < window
        expected.append(
            scaled_dot_product_attention(*own, attn_mask=allowed, scale=0.3, enable_gqa=True)
        )
        start += length
    torch.testing.assert_close(
        found, torch.cat(expected, dim=2).transpose(1, 2), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["full", "causal", "window"])
@pytest.mark.parametrize("scaling", [None, 0.5])
def test_short_bf16_attention_agrees_with_the_fused_kernel(kind: str, scaling: float | None):
    length = 40
    allowed = None if kind == "full" else torch.ones(length, length, dtype=torch.bool).tril()
    if kind == "window" and allowed is not None:
        allowed = allowed.triu(-6)
    leaves, exact = [], []
    for seed in range(3):
        leaves.append(heads(4, length, seed=seed, dtype=torch.bfloat16).requires_grad_())
        exact.append(leaves[-1].detach().float().requires_grad_())
    found = short_attention(*leaves, allowed, scaling)
    expected = scaled_dot_product_attention(*exact, attn_mask=allowed, scale=scaling)
    torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=2e-2)
    weights = heads(4, length, seed=9)
    (found.float() * weights).sum().backward()
    (expected * weights).sum().backward()
    for leaf, reference in zip(leaves, exact, strict=True):
        error = (leaf.grad.float() - reference.grad).norm() / reference.grad.norm()
        assert error < 0.02


def test_tower_attention_is_the_same_in_both_ways():
    module = nn.Module()
    module.is_causal = False
    query, key, value = (heads(2, 17, seed=seed) for seed in range(3))
    plain, _ = tower_attention(module, query, key, value, None, scaling=0.4)
    short, _ = tower_attention(
        module, *(x.bfloat16() for x in (query, key, value)), None, scaling=0.4
    )
    assert plain.shape == short.shape == (1, 17, 2, 8)
    torch.testing.assert_close(short.float(), plain, rtol=2e-2, atol=2e-2)


def test_a_towers_dropout_is_kept():
    module = nn.Module()
    module.is_causal = False
    inputs = [heads(2, 17, seed=seed, dtype=torch.bfloat16) for seed in range(3)]
    dropped, _ = tower_attention(module, *inputs, None, dropout=0.5)
    plain, _ = tower_attention(module, *inputs, None, dropout=0.0)
    assert (dropped - plain).abs().max() > 0.1


def test_a_language_that_drops_keywords_is_named():
    with pytest.raises(ModelError, match="Identity did not receive `segments`"):
        packed_attention(nn.Identity(), heads(1, 3), heads(1, 3), heads(1, 3), None)


def alone(lengths: list[int], row: list[torch.Tensor], allow=None, **asked) -> torch.Tensor:
    """Attention of each segment by itself, written out: float[1, T, H, C]."""
    outputs, start = [], 0
    for length in lengths:
        query, key, value = (tensor[:, :, start : start + length] for tensor in row)
        key, value = (tensor.repeat_interleave(2, dim=1) for tensor in (key, value))
        scores = query @ key.transpose(-2, -1) * 0.3
        if cap := asked.get("softcap"):
            scores = cap * (scores / cap).tanh()
        allowed = torch.ones(length, length, dtype=torch.bool).tril()
        if allow is not None:
            place = torch.arange(length)
            allowed &= allow(place[:, None], place[None])
        scores = scores.masked_fill(~allowed, float("-inf"))
        if (sinks := asked.get("s_aux")) is not None:
            sink = sinks.reshape(1, -1, 1, 1).expand(1, 4, length, 1)
            scores = torch.cat([scores, sink], dim=-1)
        outputs.append(scores.softmax(dim=-1)[..., :length] @ value)
        start += length
    return torch.cat(outputs, dim=2).transpose(1, 2)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"softcap": 0.5},
        {"s_aux": torch.tensor([-1.0, 0.0, 1.0, 2.0])},
        {"softcap": 0.5, "s_aux": torch.ones(4)},
    ],
    ids=["narrow", "softcap", "sinks", "both"],
)
def test_narrow_values_capped_scores_and_sinks_are_exact(asked: dict[str, object]):
    lengths = [5, 1, 12, 70]
    row = [heads(4, 88, seed=1), heads(2, 88, seed=2), heads(2, 88, width=6, seed=3)]
    found, _ = packed_attention(
        nn.Identity(), *row, None, segments=segments_of(lengths), scaling=0.3, **asked
    )
    assert found.shape == (1, 88, 4, 6)
    torch.testing.assert_close(found, alone(lengths, row, **asked), rtol=1e-5, atol=1e-6)


def test_narrow_values_in_bf16():
    row = [heads(2, 9, seed=seed, width=8 - 2 * (seed == 2)) for seed in range(3)]
    short = short_attention(*(tensor.bfloat16() for tensor in row))
    torch.testing.assert_close(
        short.float(), scaled_dot_product_attention(*row), rtol=2e-2, atol=2e-2
    )


@pytest.mark.parametrize("kind", ["window", "chunk"])
def test_masks_are_the_models_own(kind: str):
    """A window that is in the mask alone, and chunks, which start anew in every sample."""
    lengths = [5, 3, 17, 70]
    row = [heads(4, 95, seed=1), heads(2, 95, seed=2), heads(2, 95, seed=3)]

    def allow(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return query - key < 4 if kind == "window" else query // 4 == key // 4

    starts = torch.tensor([0, 5, 8, 25]).repeat_interleave(torch.tensor(lengths))

    def function(batch, head, query, key):
        del batch, head
        query, key = query - starts[query], key - starts[key]
        return (query >= key) & allow(query, key)

    found, _ = packed_attention(
        nn.Identity(),
        *row,
        PackedMask(function, 4),
        segments=segments_of(lengths),
        scaling=0.3,
    )
    torch.testing.assert_close(found, alone(lengths, row, allow), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attend", [packed_attention, rows_attention])
def test_what_is_not_known_is_refused(attend):
    row = [heads(1, 3), heads(1, 3), heads(1, 3)]
    with pytest.raises(ModelError, match="`relative_bias`"):
        attend(nn.Identity(), *row, None, segments=segments_of([3]), relative_bias=torch.ones(1))


def test_scores_that_the_model_computes_itself_are_refused():
    row = [heads(1, 3), heads(1, 3), heads(1, 3)]
    with pytest.raises(ModelError, match="adds to its scores"):
        packed_attention(nn.Identity(), *row, torch.zeros(3, 3), segments=segments_of([3]))


@pytest.mark.parametrize("asked", [{"softcap": 30.0}, {"s_aux": torch.zeros(1)}])
def test_sdpa_never_leaves_out_caps_and_sinks(asked: dict[str, object]):
    with pytest.raises(ModelError, match="caps its scores or has attention sinks"):
        rows_attention(nn.Identity(), heads(1, 3), heads(1, 3), heads(1, 3), None, **asked)
