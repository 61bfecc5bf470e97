"""Draws keep the mixture's shares at every moment, and caps where there are any."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import loader_config, random_plans, table

from sailvit.core.errors import DataError
from sailvit.data.lengths.costs import CostTable
from sailvit.data.sampling.draws import Draws


def drawn(shares, count, *, sizes=None, block=2048, **settings):
    costs = {name: table((sizes or {}).get(name, 50)) for name in shares}
    nothing = dict.fromkeys(shares, 0)
    return list(
        islice(Draws(loader_config(shares, **settings), costs, block).after(nothing), count)
    )


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.01, 10), min_size=1))
@settings(deadline=None, max_examples=50)
def test_shares_hold_at_every_moment(shares):
    counts: Counter[str] = Counter()
    total = sum(shares.values())
    for number, draw in enumerate(drawn(shares, 1500), 1):
        assert draw.nth == counts[draw.source]
        counts[draw.source] += 1
        assert all(
            abs(counts[name] - share / total * number) < 2.5 for name, share in shares.items()
        )


def test_many_small_sources_take_turns():
    shares = {"big": 51.0, **{f"small{index:02}": 1.0 for index in range(49)}}
    made = drawn(shares, 1000)
    for at in range(0, 980, 20):
        assert 8 <= sum(draw.source == "big" for draw in made[at : at + 20]) <= 12


def test_after_its_cap_a_source_leaves_the_others_their_proportion():
    made = drawn({"a": 5, "b": 2, "c": 1}, 2000, caps={"a": 100})
    counts = Counter(draw.source for draw in made)
    assert counts["a"] == 100
    assert abs(counts["b"] - 2 * counts["c"]) <= 4
    late = Counter(draw.source for draw in made[200:320])
    assert late == {"b": 80, "c": 40}


def test_the_stream_ends_when_all_are_capped_or_at_its_number_of_samples():
    assert Counter(
        draw.source for draw in drawn({"a": 3, "b": 1}, None, caps={"a": 7, "b": 130})
    ) == {"a": 7, "b": 130}
    assert len(drawn({"a": 3, "b": 1}, None, samples=321)) == 321
    assert len(drawn({"a": 3, "b": 1}, None, samples=321, caps={"a": 7, "b": 10})) == 17


@given(random_plans(), st.integers(1, 80), st.integers(0, 400))
@settings(deadline=None, max_examples=30)
def test_neither_blocks_nor_where_one_starts_change_the_draws(plan, block, stop):
    settings, costs = plan
    nothing = dict.fromkeys(costs, 0)
    whole = list(islice(Draws(settings, costs).after(nothing), 700))
    before, after = whole[:stop], whole[stop:]
    counts = {**nothing, **Counter(draw.source for draw in before)}
    blocks = Draws(settings, costs, block)
    assert list(islice(blocks.after(counts), len(after))) == after
    pending = {name: [draw.nth for draw in before[-40:] if draw.source == name] for name in costs}
    assert blocks.again(pending) == before[-40:]


def test_the_order_of_the_recipe_does_not_matter():
    assert drawn({"a": 1, "b": 2, "c": 3}, 300) == drawn({"c": 3, "a": 1, "b": 2}, 300)


def test_order_depends_on_seed_name_and_source():
    def order(source="a", **settings):
        return tuple(draw.position for draw in drawn({source: 1.0}, 30, **settings))

    assert order() == order()
    assert len({order(), order(seed=6), order(name="fine"), order(source="b")}) == 4


def test_costs_are_cut_to_what_a_pack_holds():
    costs = {"a": CostTable(np.array([5000], np.int32), np.array([30], np.int32))}
    draw = next(Draws(loader_config({"a": 1}, tiles=12), costs).after({"a": 0}))
    assert (draw.tokens, draw.tiles) == (4096, 12)
    assert next(Draws(loader_config({"a": 1}), costs).after({"a": 0})).tiles == 30


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("caps", [{"a": 7, "b": 5000}, {"a": 50, "b": 100}, {"a": 60, "b": 49}])
def test_all_tokens_of_limited_sources_are_those_of_their_draws(caps, window):
    costs = {
        name: CostTable(np.arange(50, dtype=np.int32) * 200, np.zeros(50, np.int32), (20, 1, 29))
        for name in "ab"
    }
    made = Draws(loader_config({"a": 1, "b": 3}, caps=caps, window=window), costs)
    assert made.tokens() == sum(draw.tokens for draw in made.after({"a": 0, "b": 0}))
    assert Draws(loader_config({"a": 1, "b": 3}, caps={"a": 7}), costs).tokens() is None


def test_an_empty_source_is_refused():
    with pytest.raises(DataError, match="source b has no records"):
        drawn({"a": 1, "b": 1}, 1, sizes={"b": 0})
