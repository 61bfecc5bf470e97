"""The plan is a function: stopping anywhere, and going on from the cursor, changes nothing."""

from __future__ import annotations

import json
from itertools import islice

import pytest
from plans import skewed, skewed_feed

from sailvit.core.errors import DataError
from sailvit.data.plan.planner import Plan


def test_going_on_from_a_cursor_gives_the_next_step():
    plan = Plan(skewed_feed(4096, 8), skewed(300))
    steps = list(islice(plan.steps(), 40))
    for stop in (0, 17, 38):
        cursor = json.loads(json.dumps(steps[stop].cursor))
        assert cursor == steps[stop].cursor
        assert next(plan.steps(cursor)) == steps[stop + 1]


def test_a_cursor_of_another_feed_is_refused():
    cursor = next(Plan(skewed_feed(4096, 8), skewed(300)).steps()).cursor
    with pytest.raises(DataError, match="with sequence 4096; expected 2048"):
        Plan(skewed_feed(2048, 8), skewed(300)).steps(cursor)
