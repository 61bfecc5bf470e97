"""The search as a machine: what it decides on losses whose slopes are known."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from sailvit.core.schedule import SearchConfig
from sailvit.training.optim.adalrs import Event, RateSearch

WINDOW = 8


def search(**settings: Any) -> RateSearch:
    return RateSearch(SearchConfig(**{"window": WINDOW, "widest": 1, **settings}))


def falling(
    slope: Callable[[float], float],
    start: float = 10.0,
    jump: Callable[[float], float] | None = None,
) -> Any:
    """A loss that falls by slope(factor) per step around which it alternates by 1 %, plus jump(factor)."""
    level = start
    factor = yield None
    for sign in itertools.cycle((1, -1, -1, 1)):
        level -= slope(factor)
        factor = yield level + 0.01 * sign + (jump(factor) if jump else 0.0)


def drive(made: RateSearch, losses: Any, windows: int, done: float = 0.1) -> list[Event]:
    events: list[Event] = []
    next(losses)
    for _ in range(windows * WINDOW):
        events += made.observe(done, losses.send(made.factor))
    return events


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


def test_a_raise_that_helps_is_kept_and_followed_by_the_next():
    made = search()
    events = drive(made, falling(lambda factor: 0.01 * factor), 4)
    assert kinds(events) == ["raised", "kept", "raised", "kept", "raised", "kept", "raised"]
    assert [event.factor for event in events[::2]] == pytest.approx(
        [3, 3 * 2.7, 3 * 2.7 * 2.43, 3 * 2.7 * 2.43 * 2.187]
    )
    assert made.state.changes == 3
    accepted = events[1]
    assert accepted.against is not None
    assert accepted.line is not None
    assert (accepted.against.slope, accepted.line.slope) == pytest.approx((-0.01, -0.03), rel=0.1)


def test_a_raise_that_hurts_is_taken_back_and_the_rate_lowered():
    """Slower than before the raise, and slower than the control that follows from the same start."""
    made = search()
    events = drive(made, falling(lambda factor: 0.02 / factor), 6)
    assert kinds(events) == ["raised", "taken back", "lowered"] * 2
    assert [event.factor for event in events] == pytest.approx(
        [3, 1, 1 / 2, 2.7 / 2, 1 / 2, 1 / 2 / 1.8]
    )
    lowered = events[2]
    assert lowered.line is not None
    assert lowered.against is not None
    assert (lowered.line.slope, lowered.against.slope) == pytest.approx((-0.02 / 3, -0.02), rel=0.1)
    assert not made.trying


def windows(made: RateSearch, slopes: list[float]) -> list[Event]:
    """Windows of these slopes, whatever the rate."""
    events, level = [], 10.0
    for slope in slopes:
        for step in range(WINDOW):
            level += slope
            events += made.observe(0.1, level + 0.001 * (-1) ** (step // 2))
    return events


@pytest.mark.parametrize(
    ("raised", "control", "kind", "factor"),
    [(-0.05, -0.05, "left", 1.0), (-0.06, -0.02, "kept", 3.0), (-0.02, -0.06, "lowered", 0.5)],
    ids=["it slows down anyway", "it slows down more at the old rate", "the raise slows it down"],
)
def test_a_slower_loss_is_blamed_on_the_raise_only_against_a_control(
    raised: float, control: float, kind: str, factor: float
):
    made = search()
    assert kinds(windows(made, [-0.1, raised, control])) == ["raised", "taken back", kind]
    assert (made.factor, made.state.suspect, made.state.before) == (factor, None, None)
    assert made.state.changes == (kind != "left")


def test_a_raise_that_changes_nothing_leaves_the_rate_and_looks_longer():
    made = search(widest=4)
    events = drive(made, falling(lambda factor: 0.01), 2)
    assert (kinds(events), made.factor, made.state.changes) == (["raised", "left"], 1.0, 0)
    assert made.state.window == 2 * WINDOW
    drive(made, falling(lambda factor: 0.01), 4 + 8 + 8)
    assert made.state.window == 4 * WINDOW
    assert made.factor == 1.0


def test_a_difference_within_the_error_decides_nothing():
    """The same losses, judged at 2 errors and at 200."""
    for errors, kind in ((2.0, "kept"), (200.0, "left")):
        made = search(errors=errors)
        assert kinds(drive(made, falling(lambda factor: 0.01 * factor), 2))[1] == kind


def test_a_jump_to_a_plateau_is_worse_though_flat():
    made = search()
    flat = falling(lambda factor: 0.0, jump=lambda factor: 5 * factor)
    assert kinds(drive(made, flat, 2)) == ["raised", "taken back", "lowered"]
    assert made.factor == 0.5


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_a_trial_at_once(loss: float):
    made = search()
    drive(made, falling(lambda factor: 0.01), 1)
    assert made.trying
    back, event = made.observe(0.1, loss)
    assert (back.kind, event.kind, event.line, made.factor, made.trying) == (
        "taken back",
        "lowered",
        None,
        0.5,
        False,
    )
    assert made.observe(0.1, loss) == []
    assert made.state.losses == []


def test_the_factors_shrink_until_nothing_is_left_to_try():
    made = search(shrink=0.5)
    events = drive(made, falling(lambda factor: 0.01 * factor), 10)
    assert kinds(events) == ["raised", "kept", "raised", "kept", "found"]
    assert made.factor == pytest.approx(3 * 1.5)
    assert drive(made, falling(lambda factor: 0.01), 3) == []


def test_bounds_hold():
    high, low = search(most=5.0), search(least=0.3)
    drive(high, falling(lambda factor: 0.01 * factor), 10)
    drive(low, falling(lambda factor: 0.02 / factor), 6)
    assert (high.factor, high.state.ended) == (5.0, True)
    assert low.factor == 0.3


def test_no_trial_begins_late_but_one_that_runs_is_finished():
    made = search(until=0.5)
    steady = falling(lambda factor: 0.01 * factor)
    drive(made, steady, 1, done=0.4)
    assert made.trying
    events = drive(made, falling(lambda factor: 0.01 * factor, start=9.92), 2, done=0.6)
    assert kinds(events) == ["kept", "found"]
    assert (made.factor, made.state.ended) == (3.0, True)
    early = search(until=0.5)
    assert kinds(drive(early, falling(lambda factor: 0.01), 1, done=0.51)) == ["found"]


@pytest.mark.parametrize("stop", [3, WINDOW + 3, 2 * WINDOW + 3, 3 * WINDOW + 1])
def test_a_search_goes_on_from_its_json(stop: int):
    """In a first window, in a trial, in its control, and after that."""
    losses = [10 - 0.3 * math.sqrt(step) + 0.01 * math.sin(7 * step) for step in range(60)]
    whole, first, second = search(), search(), search()
    expected = [whole.observe(0.1, loss) for loss in losses]
    found = [first.observe(0.1, loss) for loss in losses[:stop]]
    second.load(json.loads(json.dumps(first.values())))
    assert second.state == first.state
    found += [second.observe(0.1, loss) for loss in losses[stop:]]
    assert found == expected
    assert second.values() == whole.values()
