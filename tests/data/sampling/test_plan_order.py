"""Order is a function of the seed: permutations per epoch, of whole sources or of windows of shards."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sailvit.data.sampling.order import DrawOrder, permute


@given(st.integers(1, 400), st.integers(0, 2**63 - 1))
@settings(deadline=None)
def test_a_permutation_hits_every_place_once(size, seed):
    assert sorted(permute(np.arange(size), size, seed)) == list(range(size))


def test_a_permutation_is_the_same_on_every_machine():
    assert permute(np.arange(10), 10, 42).tolist() == [5, 3, 2, 4, 9, 7, 1, 6, 8, 0]
    assert permute(np.array([123_456_789_012]), 10**12, 7).tolist() == [884670172166]


def test_a_permutation_leaves_no_trace_of_the_old_order():
    size = 2000
    places = permute(np.arange(size), size, 1).tolist()
    steps = [abs(after - before) for before, after in pairwise(places)]
    assert abs(sum(steps) / len(steps) / size - 1 / 3) < 0.02
    early = sum(place < size / 2 for place in places[: size // 2]) / (size / 2)
    assert abs(early - 0.5) < 0.05
    assert sum(place == index for index, place in enumerate(places)) < 8


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any),
    st.sampled_from([None, 1, 2, 5]),
    st.integers(1, 50),
)
@settings(deadline=None)
def test_every_epoch_sees_every_record_once_whatever_the_blocks(shards, window, block):
    size = sum(shards)
    positions = DrawOrder(shards, window, 3).positions(np.arange(3 * size))
    for epoch in np.split(positions, 3):
        assert sorted(epoch) == list(range(size))
    blocks = DrawOrder(shards, window, 3)
    again = [
        blocks.positions(np.arange(at, min(at + block, 3 * size)))
        for at in range(0, 3 * size, block)
    ]
    assert np.concatenate(again).tolist() == positions.tolist()


def test_epochs_and_seeds_differ():
    order = [DrawOrder([40, 60], None, seed).positions(np.arange(200)) for seed in (1, 2)]
    rows = [*order[0].reshape(2, 100).tolist(), *order[1].reshape(2, 100).tolist()]
    assert len(set(map(tuple, rows))) == 4


def test_a_window_keeps_few_shards_open_and_mixes_them():
    shards = np.repeat(np.arange(20), 50)
    drawn = shards[DrawOrder([50] * 20, 4, 9).positions(np.arange(2000))]
    for window in np.split(drawn, 10):
        assert len(set(window.tolist())) == 4
        assert len(set(window[:40].tolist())) == 4
    first, second = (tuple(dict.fromkeys(epoch.tolist())) for epoch in np.split(drawn, 2))
    assert set(first[:4]) != set(second[:4])


def test_a_window_of_all_shards_is_the_whole_source():
    every = [
        DrawOrder([50] * 4, window, 9).positions(np.arange(200)).tolist()
        for window in (None, 4, 100)
    ]
    assert every[0] == every[1] == every[2]


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=9).filter(any),
    st.integers(1, 10),
    st.data(),
)
@settings(deadline=None)
def test_what_comes_is_where_the_next_draws_are_from(shards, window, data):
    size = sum(shards)
    order, owner = DrawOrder(shards, window, 3), np.repeat(np.arange(len(shards)), shards)
    nth = data.draw(st.integers(0, 3 * size - 1))
    now, then, border = order.coming(nth)
    assert nth < border
    assert len(now) <= window >= len(then)
    assert set(owner[order.positions(np.arange(nth, border))]) <= set(now)
    # Windows of empty shards alone are passed over.
    if sum(shards[shard] for shard in then):
        later, _, end = order.coming(border)
        assert later == then
        assert set(owner[order.positions(np.arange(border, end))]) <= set(then)
