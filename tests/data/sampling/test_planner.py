"""The plan is a function: stopping anywhere, and going on from the cursor, changes nothing."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import loader_config, random_plans, skewed, skewed_config, table

from sailvit.core.errors import DataError
from sailvit.data.sampling.balance import deal
from sailvit.data.sampling.planner import PackPlan


def travelled(cursor):
    """The cursor after a journey through a file."""
    return json.loads(json.dumps(cursor))


@given(random_plans(), st.lists(st.integers(1, 12), min_size=1, max_size=5))
@settings(deadline=None, max_examples=60)
def test_stops_change_nothing(plan, runs):
    steps = list(islice(PackPlan(*plan).steps(), sum(runs) + 3))
    resumed, cursor = [], None
    for count in [*runs, 3]:
        resumed += islice(PackPlan(*plan).steps(cursor), count)
        cursor = travelled(resumed[-1].cursor) if resumed else None
    assert resumed == steps
    assert all(travelled(step.cursor) == step.cursor for step in steps)
    assert all(len(json.dumps(step.cursor)) <= 8192 for step in steps)


@given(random_plans())
@settings(deadline=None, max_examples=40)
def test_every_record_once_per_epoch_and_both_budgets_kept(plan):
    settings, costs = plan
    seen = defaultdict(dict)
    for step in islice(PackPlan(*plan).steps(), 60):
        for pack in step.packs:
            assert sum(draw.tokens for draw in pack) <= settings.sequence
            assert settings.tiles is None or sum(draw.tiles for draw in pack) <= settings.tiles
            for draw in pack:
                assert draw.nth not in seen[draw.source]
                seen[draw.source][draw.nth] = draw.position
    for source, positions in seen.items():
        size = len(costs[source])
        for epoch in range(max(positions) // size + 1):
            of_epoch = [
                positions[nth]
                for nth in range(epoch * size, (epoch + 1) * size)
                if nth in positions
            ]
            assert len(set(of_epoch)) == len(of_epoch)


@given(random_plans())
@settings(deadline=None, max_examples=40)
def test_a_feed_that_ends_packs_everything_it_drew(plan):
    limited = replace(plan[0], samples=500)
    steps = list(PackPlan(limited, plan[1]).steps())
    counts = Counter(draw.source for step in steps for pack in step.packs for draw in pack)
    assert counts == {source: count for source, count in steps[-1].cursor["drawn"].items() if count}
    assert counts.total() == steps[-1].cursor["samples"] <= 500
    assert all(counts[source] <= cap for source, cap in limited.caps.items())
    assert counts.total() == 500 or all(
        counts[source] == limited.caps.get(source) for source in limited.shares
    )
    assert not steps[-1].cursor["pending"]
    assert [len(step.packs) for step in steps[:-1]] == [limited.global_batch] * (len(steps) - 1)


def test_a_small_source_goes_round_while_a_large_one_is_in_its_first_epoch():
    costs = {"small": table(7), "large": table(900, tiles=(0, 3), seed=1)}
    mixture = loader_config({"small": 1, "large": 3}, sequence=2048)
    steps = list(islice(PackPlan(mixture, costs).steps(), 12))
    assert steps[-1].cursor["drawn"]["small"] > 14
    for stop in range(11):
        assert (
            next(PackPlan(mixture, costs).steps(travelled(steps[stop].cursor))) == steps[stop + 1]
        )


def test_counts_of_the_cursor_add_up():
    steps = list(islice(PackPlan(skewed_config(4096, 8), skewed(300)).steps(), 10))
    draws = [draw for step in steps for pack in step.packs for draw in pack]
    last = steps[-1].cursor
    assert (last["steps"], last["packs"], last["samples"]) == (10, 80, len(draws))
    assert last["tokens"] == sum(draw.tokens for draw in draws)
    assert sum(last["drawn"].values()) - len(draws) == sum(map(len, last["pending"].values()))


def test_another_global_batch_groups_the_same_packs():
    eight, two = (PackPlan(skewed_config(4096, size), skewed(300)).steps() for size in (8, 2))
    assert [pack for step in islice(eight, 5) for pack in step.packs] == [
        pack for step in islice(two, 20) for pack in step.packs
    ]


def test_any_number_of_ranks_shares_the_same_packs():
    step = next(PackPlan(skewed_config(4096, 64), skewed(300)).steps())
    for world in (1, 2, 4, 8):
        ranks = deal(step.packs, world)
        assert sorted(pack for rank in ranks for pack in rank) == sorted(step.packs)


@pytest.mark.parametrize("sequence", [4096, 8192])
def test_packs_of_the_skewed_mixture_are_full_even_and_blended(sequence):
    steps = list(islice(PackPlan(skewed_config(sequence), skewed()).steps(), 16))
    packs = [pack for step in steps for pack in step.packs]
    counts = Counter(draw.source for pack in packs for draw in pack)
    assert abs(counts["pictures"] / counts.total() - 0.7) < 0.005
    assert sum(draw.tokens for pack in packs for draw in pack) / sequence / len(packs) >= 0.98
    for per_rank, bar in ((2, 1.05), (4, 1.03), (8, 1.03)):
        ratios = []
        for at in range(0, len(packs), 8 * per_rank):
            ranks = deal(packs[at : at + 8 * per_rank], 8)
            loads = [sum(draw.tiles for pack in rank for draw in pack) for rank in ranks]
            ratios.append(max(loads) / np.mean(loads))
        assert np.mean(ratios) < bar


def test_a_cursor_of_another_feed_is_refused():
    ours = skewed_config(4096, 8)
    cursor = travelled(next(PackPlan(ours, skewed(300)).steps()).cursor)
    for change, message in [
        ({"sequence": 2048}, "with sequence 4096; expected 2048"),
        ({"seed": 1}, "with seed 5; expected 1"),
        ({"tiles": 30}, "with pack_tiles None; expected 30"),
        ({"window": 2}, "with window None; expected 2"),
        ({"caps": {"texts": 9}}, "with caps {}; expected {'texts': 9}"),
        (
            {"shares": {"pictures": 0.5, "texts": 0.5}},
            "with shares .* resume with the recipe and the data",
        ),
    ]:
        with pytest.raises(DataError, match=message):
            PackPlan(replace(ours, **change), skewed(300)).steps(cursor)
    with pytest.raises(DataError, match=r"with records {'pictures': 300, 'texts': 300}; expected"):
        PackPlan(ours, skewed(301)).steps(cursor)
    free = replace(ours, global_batch=4, micro_batch=2, workers=3, rank=1, world=2, samples=10**6)
    assert next(PackPlan(free, skewed(300)).steps(cursor)).packs


def test_the_plan_is_the_same_on_every_machine():
    step = next(islice(PackPlan(skewed_config(4096, 4), skewed(1000)).steps(), 5, None))
    positions = [[draw.position for draw in pack] for pack in step.packs]
    assert positions == [
        [358, 134, 823],
        [572, 730, 255],
        [32, 131, 557],
        [740, 526, 682, 384, 240],
    ]
