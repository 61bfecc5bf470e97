"""Every rank gets equally many packs, of about equal visual work, and all of them together the step."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sailvit.data.sampling.balance import deal
from sailvit.data.sampling.draws import Drawn


def packs_of(tiles):
    return [(Drawn("a", nth, nth, 100, count),) for nth, count in enumerate(tiles)]


def load(rank):
    return sum(draw.tiles for pack in rank for draw in pack)


@given(st.lists(st.integers(0, 40), max_size=70), st.sampled_from([1, 2, 3, 8]))
@settings(deadline=None)
def test_ranks_get_the_packs_of_the_step_and_equally_many(tiles, world):
    packs = packs_of(tiles)
    ranks = deal(packs, world)
    assert len(ranks) == world
    assert {len(rank) for rank in ranks} == {-(-len(packs) // world)}
    assert Counter(pack for rank in ranks for pack in rank if pack) == Counter(packs)
    assert all(
        [load([pack]) for pack in rank] == sorted((load([pack]) for pack in rank), reverse=True)
        for rank in ranks
    )
    assert deal(packs, world) == ranks


def test_uneven_packs_are_dealt_evenly():
    generator = np.random.default_rng(0)
    for per_rank, bar in ((4, 1.05), (8, 1.015)):
        ratios = []
        for _ in range(30):
            loads = [
                load(rank)
                for rank in deal(packs_of(np.round(generator.lognormal(4, 0.5, 8 * per_rank))), 8)
            ]
            ratios.append(max(loads) / np.mean(loads))
        assert np.mean(ratios) < bar


def test_swaps_help_where_the_longest_first_rule_ends_badly():
    ranks = deal(packs_of([9, 7, 5, 5, 4, 4]), 2)
    assert [load(rank) for rank in ranks] == [17, 17]


def test_texts_decide_where_no_tiles_are():
    packs = [(Drawn("a", nth, nth, tokens, 0),) for nth, tokens in enumerate([50, 10, 40, 20])]
    ranks = deal(packs, 2)
    assert [sum(draw.tokens for pack in rank for draw in pack) for rank in ranks] == [60, 60]
