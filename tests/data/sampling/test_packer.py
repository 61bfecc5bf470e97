"""Packs lose nothing, overfill nothing, starve nobody and waste little."""

from __future__ import annotations

from itertools import count

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sailvit.data.sampling.draws import Drawn
from sailvit.data.sampling.packer import PENDING, Packer


def draws(costs):
    return [Drawn("a", nth, nth, tokens, tiles) for nth, (tokens, tiles) in enumerate(costs)]


def packs_of(given_draws, sequence, tiles=None):
    packer, stream, packs = Packer(sequence, tiles), iter(given_draws), []
    while pack := packer.take(stream):
        packs.append(pack)
    return packs


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 6)), max_size=600),
    st.sampled_from([None, 6, 11]),
)
@settings(deadline=None, max_examples=60)
def test_packing_loses_nothing_and_keeps_both_budgets(costs, tiles):
    stream = draws(costs)
    packs = packs_of(stream, 50, tiles)
    assert sorted(draw for pack in packs for draw in pack) == stream
    for pack in packs:
        assert sum(draw.tokens for draw in pack) <= 50
        assert tiles is None or sum(draw.tiles for draw in pack) <= tiles


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 6)), max_size=900))
@settings(deadline=None, max_examples=30)
def test_the_oldest_always_goes_and_few_are_pending(costs):
    packer, stream, left = Packer(50, None), iter(draws(costs)), dict.fromkeys(range(len(costs)))
    while pack := packer.take(stream):
        assert pack[0].nth == next(iter(left))
        for draw in pack:
            del left[draw.nth]
        assert sum(map(len, packer.pending.values())) <= PENDING
    assert not left


def test_what_is_pending_can_be_handed_to_another_packer():
    generator = np.random.default_rng(0)
    stream = draws(
        zip(
            generator.integers(10, 900, 800).tolist(),
            generator.integers(0, 4, 800).tolist(),
            strict=True,
        )
    )
    packer, source = Packer(1024, 6), iter(stream)
    for _ in range(40):
        packer.take(source)
    rest = list(source)
    other = Packer(1024, 6, [stream[nth] for nth in packer.pending["a"]])
    ours, theirs = iter(rest), iter(rest)
    assert [packer.take(ours) for _ in range(60)] == [other.take(theirs) for _ in range(60)]


def test_tiny_records_fill_packs_larger_than_the_buffer():
    packs = packs_of(draws([(7, 0)] * 5000), 8192)
    assert len(packs) == 5
    assert min(sum(draw.tokens for draw in pack) for pack in packs[:-1]) > 0.995 * 8192


def test_records_that_cost_nothing_are_packed_too():
    packs = packs_of(draws([(0, 0)] * 700), 64)
    assert sum(map(len, packs)) == 700


def test_a_stream_without_end_that_costs_nothing_still_makes_packs():
    packer, stream = Packer(64, 4), (Drawn("a", nth, nth, 0, 0) for nth in count())
    assert [len(packer.take(stream)) for _ in range(5)] == [64] * 5


def test_where_tiles_run_out_texts_fill_the_room():
    generator = np.random.default_rng(0)
    texts = [(tokens, 0) for tokens in generator.integers(20, 200, 3000).tolist()]
    pictures = [(256 * tiles + 60, tiles) for tiles in generator.integers(1, 5, 1000).tolist()]
    mixed = [
        cost
        for number in range(1000)
        for cost in (pictures[number], *texts[3 * number : 3 * number + 3])
    ]
    packs = packs_of(draws(mixed), 2048, 5)
    assert max(sum(draw.tiles for draw in pack) for pack in packs) == 5
    assert np.mean([sum(draw.tokens for draw in pack) for pack in packs[:-20]]) > 0.95 * 2048


def test_short_records_fill_packs_to_more_than_99_percent():
    generator = np.random.default_rng(0)
    packs = packs_of(
        draws([(tokens, 1) for tokens in generator.integers(30, 80, 4000).tolist()]), 1024
    )
    fills = [sum(draw.tokens for draw in pack) / 1024 for pack in packs[:-10]]
    assert np.mean(fills) > 0.99
