"""Packed attention: buckets lose nothing, the fast path agrees with torch's, and what cannot pack says so."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from sailvit.core.errors import ModelError
from sailvit.models.attention import Segments, packed_attention, short_attention, tower_attention


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


@pytest.mark.parametrize(("keyword", "value"), [("softcap", 30.0), ("s_aux", torch.zeros(1))])
def test_what_packed_attention_does_not_do_is_refused(keyword: str, value: object):
    with pytest.raises(ModelError, match=keyword):
        packed_attention(
            nn.Identity(),
            heads(1, 3),
            heads(1, 3),
            heads(1, 3),
            None,
            segments=segments_of([3]),
            **{keyword: value},
        )
