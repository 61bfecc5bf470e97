"""Schedules: their values, and the settings that do not go together."""

from __future__ import annotations

import math
from typing import get_args

import pytest
from pydantic import ValidationError

from sailvit.core.schedule import DecayConfig, ScheduleConfig, Shape, share_a_factor
from sailvit.training.optim.schedules import FALLS, SHAPES, rate


@pytest.mark.parametrize(
    ("name", "done", "expected"),
    [
        ("cosine", 0.05, 0.5),
        ("cosine", 0.1, 1.0),
        ("cosine", 0.55, 0.55),
        ("cosine", 1.0, 0.1),
        ("linear", 0.55, 0.55),
        ("linear", 0.325, 0.775),
        ("linear", 1.0, 0.1),
        ("linear", 2.0, 0.1),
        ("constant", 0.05, 0.5),
        ("constant", 1.0, 1.0),
        ("wsd", 0.05, 0.5),
        ("wsd", 0.1, 1.0),
        ("wsd", 0.8, 1.0),
        ("wsd", 0.9, 0.55),
        ("wsd", 1.0, 0.1),
        ("adalrs", 0.05, 0.5),
        ("adalrs", 0.8, 1.0),
        ("adalrs", 0.9, 0.55),
    ],
)
def test_schedule_shapes(name: str, done: float, expected: float):
    assert rate(ScheduleConfig(name=name, warmup=0.1, final=0.1), done) == pytest.approx(expected)


def test_cosine_is_a_cosine_and_all_warm_up_is_a_ramp():
    config = ScheduleConfig(warmup=0.0)
    for done in (0.0, 0.2, 0.7):
        assert rate(config, done) == pytest.approx((1 + math.cos(math.pi * done)) / 2)
    ramp = ScheduleConfig(warmup=1.0)
    assert [rate(ramp, done) for done in (0.0, 0.3, 0.99)] == pytest.approx([0.0, 0.3, 0.99])


@pytest.mark.parametrize(
    ("shape", "halfway"), [("linear", 0.5), ("cosine", 0.5), ("sqrt", 1 - math.sqrt(0.5))]
)
def test_a_decay_falls_from_one_to_zero_over_its_share(shape: str, halfway: float):
    config = ScheduleConfig(name="wsd", warmup=0.0, decay={"share": 0.4, "shape": shape})
    assert [rate(config, done) for done in (0.0, 0.6, 0.8, 1.0)] == pytest.approx(
        [1.0, 1.0, halfway, 0.0]
    )
    falling = [rate(config, 0.6 + 0.004 * step) for step in range(101)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("base", get_args(Shape))
def test_a_search_keeps_the_shape_of_its_base(base: str):
    plain = ScheduleConfig(name=base, warmup=0.1)
    searching = ScheduleConfig(name="adalrs", warmup=0.1, search={"base": base})
    assert [rate(searching, n / 20) for n in range(21)] == [rate(plain, n / 20) for n in range(21)]


def test_every_shape_that_a_recipe_can_name_is_there():
    assert set(SHAPES) == set(get_args(Shape))
    assert set(FALLS) == set(get_args(DecayConfig.model_fields["shape"].annotation))


def test_the_resolved_settings_show_what_the_schedule_does():
    """A recipe.yaml that is written out leaves nothing to look up, and reads back the same."""
    for name, kept in (("cosine", set()), ("wsd", {"decay"}), ("adalrs", {"decay", "search"})):
        made = ScheduleConfig(name=name)
        values = made.model_dump()
        assert {key for key in ("decay", "search") if values[key] is not None} == kept
        assert ScheduleConfig.model_validate(values) == made
    assert ScheduleConfig(name="adalrs", search={"base": "cosine"}).decay is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "cosine", "decay": {}}, "schedule cosine has no `decay`; take the shape wsd"),
        ({"name": "linear", "search": {}}, "schedule linear has no `search`; take the name adalrs"),
        (
            {"name": "adalrs", "search": {"base": "cosine"}, "decay": {}},
            "schedule cosine has no `decay`",
        ),
        (
            {"name": "wsd", "warmup": 0.5, "decay": {"share": 0.6}},
            "warmup 0.5 and decay.share 0.6 overlap",
        ),
        (
            {"name": "adalrs", "search": {"until": 0.9}},
            "search.until is 0.9, .* more than 0.03 and at most 0.8",
        ),
        ({"name": "adalrs", "warmup": 0.6}, "search.until is 0.5, .* more than 0.6"),
        (
            {"name": "adalrs", "search": {"least": 2}},
            "factor 1, which must lie within least 2 and most 100",
        ),
        ({"name": "adalrs", "search": {"raise_by": 4}}, "raise_by 4 and lower_by 2 share a factor"),
        ({"name": "adalrs", "search": {"raise_by": 1}}, "greater than 1"),
        ({"name": "adalrs", "search": {"shrink": 1}}, "less than 1"),
        ({"name": "adalrs", "search": {"window": 2}}, "greater than or equal to 4"),
        ({"name": "cosin"}, "'cosine', 'linear', 'constant', 'wsd' or 'adalrs'"),
    ],
    ids=str,
)
def test_settings_that_do_not_go_together_are_refused(settings: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        ScheduleConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("a", "b", "shared"),
    [
        (3.0, 2.0, False),
        (4.0, 2.0, True),
        (6.0, 3.0, True),
        (1.5, 2.0, False),
        (1.5, 2.25, True),
        (1.5, 1.5, True),
    ],
)
def test_factors_that_would_meet_again(a: float, b: float, shared: bool):
    assert share_a_factor(a, b) is shared
    assert share_a_factor(b, a) is shared
