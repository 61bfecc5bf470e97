"""Numbers of probes, their intervals, and differences between towers."""

from __future__ import annotations

import numpy as np
import pytest

from sailvit.evaluation.probes.differences import differences
from sailvit.evaluation.probes.results import Outcome
from sailvit.evaluation.probes.running import best_layers


def outcome(hits, layer=4, **given):
    return Outcome(
        **{
            "probe": "linear",
            "layer": layer,
            "set": "x/val",
            "metric": "top-1",
            "hits": np.asarray(hits, np.float32),
            **given,
        }
    )


def test_right_answers_come_to_their_share_and_a_binomial_interval():
    found = outcome([1] * 80 + [0] * 20)
    assert found.value == pytest.approx(80.0)
    low, high = found.interval()
    # 1.96 * sqrt(0.8 * 0.2 / 100) = 7.84 points
    assert (low, high) == (pytest.approx(72, abs=1.01), pytest.approx(87.5, abs=1.01))


def test_ratios_are_means_over_classes_that_occur():
    hits = [[3, 0, 0], [1, 2, 0]]
    possible = np.array([[4, 1, 0], [4, 3, 0]], np.float32)
    found = outcome(hits, possible=possible, metric="mIoU")
    assert found.value == pytest.approx(100 * (4 / 8 + 2 / 4) / 2)
    low, high = found.interval()
    assert low <= found.value <= high


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    hits = np.random.default_rng(0).normal(0.5, 0.1, 400)
    low, high = outcome(hits).interval()
    assert (high - low) / 2 == pytest.approx(100 * 1.96 * hits.std() / 20, rel=0.1)


def test_a_row_has_the_documented_keys():
    row = outcome([1, 0, 1, 1]).row("base")
    assert list(row) == ["tower", "probe", "layer", "set", "metric", "value", "low", "high", "n"]
    assert (row["tower"], row["value"], row["n"]) == ("base", 75.0, 4)


def test_towers_are_compared_on_the_same_images():
    rng = np.random.default_rng(0)
    base = (rng.random(300) < 0.5).astype(float)
    better = np.where(rng.random(300) < 0.3, 1.0, base)
    found = differences({"base": [outcome(base)], "a": [outcome(better)], "b": [outcome(base)]})
    assert [each.word for each in found] == ["improves", "does not differ"]
    first = found[0]
    assert first.difference == pytest.approx(100 * (better - base).mean())
    assert first.low < first.difference < first.high
    assert first.corrected == pytest.approx(2 * first.p_value)


def test_ratios_are_compared_by_exchanging_towers():
    rng = np.random.default_rng(1)
    possible = np.full((80, 3), 100, np.float32)
    base = rng.integers(30, 60, (80, 3))
    pair = [outcome(hits, possible=possible, metric="mIoU") for hits in (base, base + 8)]
    (found,) = differences({"base": pair[:1], "other": pair[1:]})
    assert found.difference == pytest.approx(8.0)
    assert (found.low, found.high) == (pytest.approx(8.0), pytest.approx(8.0))
    assert found.p_value == pytest.approx(1 / 2001)
    (same,) = differences({"base": pair[:1], "other": pair[:1]})
    assert (same.p_value, same.word) == (1.0, "does not differ")


def test_what_goes_along_is_not_compared_and_other_images_are_not_either():
    one, other = outcome([1, 0, 1]), outcome([1, 0, 1], main=False)
    assert not differences({"base": [one], "b": [other]})
    assert not differences({"base": [one], "b": [outcome([1, 0])]})


def test_the_best_layer_is_chosen_without_the_test_set():
    found = [
        outcome([1, 1, 1, 1], layer=1, chosen=0.2),
        outcome([0, 0, 0, 0], layer=2, chosen=0.9),
        outcome([0, 1, 0, 0], layer=1, probe="correspondence"),
        outcome([0, 1, 1, 0], layer=2, probe="correspondence"),
    ]
    assert best_layers(found) == {"linear": 2, "correspondence": 2}
