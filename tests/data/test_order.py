"""Order is a function of the seed: permutations per epoch, shares kept at every moment."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sailvit.core.errors import DataError
from sailvit.data.order import Draw, Stream, permute


@given(st.integers(1, 400), st.integers(0, 2**63 - 1))
def test_a_permutation_hits_every_place_once(size, seed):
    assert sorted(permute(place, size, seed) for place in range(size)) == list(range(size))


def test_a_permutation_is_the_same_on_every_machine():
    assert [permute(place, 10, 42) for place in range(10)] == [5, 3, 2, 4, 9, 7, 1, 6, 8, 0]
    assert permute(123_456_789_012, 10**12, 7) == 884670172166


def test_a_permutation_leaves_no_trace_of_the_old_order():
    size = 2000
    places = [permute(place, size, 1) for place in range(size)]
    steps = [abs(after - before) for before, after in pairwise(places)]
    assert abs(sum(steps) / len(steps) / size - 1 / 3) < 0.02
    early = sum(place < size / 2 for place in places[: size // 2]) / (size / 2)
    assert abs(early - 0.5) < 0.05
    assert sum(place == index for index, place in enumerate(places)) < 8


def draws(stream, names, count):
    drawn, made = dict.fromkeys(names, 0), []
    for _ in range(count):
        draw = stream.next(drawn)
        drawn[draw.source] += 1
        made.append(draw)
    return made


def test_shares_hold_at_every_moment():
    shares = {"a": 7, "b": 2.5, "c": 0.5}
    made = draws(Stream({"a": 100, "b": 9, "c": 1000}, shares, seed=0, name="stage"), shares, 2000)
    counts: Counter[str] = Counter()
    for number, draw in enumerate(made, 1):
        counts[draw.source] += 1
        assert all(abs(counts[name] - share / 10 * number) <= 2 for name, share in shares.items())
    assert all(abs(counts[name] / 2000 - share / 10) < 0.01 for name, share in shares.items())


def test_every_epoch_sees_every_record_once_in_another_order():
    stream = Stream({"a": 50}, {"a": 1}, seed=3, name="stage")
    epochs = [[stream.position(Draw("a", 50 * epoch + place)) for place in range(50)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_order_depends_on_seed_name_and_source():
    def order(seed, name, source):
        stream = Stream({source: 30}, {source: 1}, seed=seed, name=name)
        return [stream.position(Draw(source, nth)) for nth in range(30)]

    assert order(0, "coarse", "a") == order(0, "coarse", "a")
    assert len({tuple(order(*key)) for key in [(0, "x", "a"), (1, "x", "a"), (0, "y", "a"), (0, "x", "b")]}) == 4


def test_an_empty_source_is_refused():
    with pytest.raises(DataError, match="source b has no records"):
        Stream({"a": 3, "b": 0}, {"a": 1, "b": 1}, seed=0, name="stage")
