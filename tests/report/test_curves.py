"""Thinned curves keep what the eye would see."""

import numpy as np
import pytest

from sailvit.report.curves import envelope, finite, smoothed, spread_indices, thinned


def test_smoothing_keeps_a_constant_and_does_not_lag_behind_a_slope():
    assert smoothed(np.full(100, 2.5)) == pytest.approx(2.5)
    slope = np.arange(200.0)
    assert smoothed(slope, 11)[20:-20] == pytest.approx(slope[20:-20])


def test_smoothing_shrinks_noise_by_the_root_of_its_window():
    noise = np.random.default_rng(0).normal(size=4000)
    assert smoothed(noise, 101)[100:-100].std() == pytest.approx(1 / np.sqrt(101), rel=0.3)


@pytest.mark.parametrize("length", [0, 1, 2, 19])
def test_short_curves_pass_unchanged(length):
    y = np.arange(float(length))
    assert np.array_equal(smoothed(y), y)
    assert np.array_equal(envelope(y, y)[1], y)
    assert np.array_equal(thinned(y, y)[1], y)


def test_the_envelope_keeps_every_spike():
    x = np.arange(10_000.0)
    y = np.zeros(10_000)
    y[[17, 5003]] = [9.0, -4.0]
    kept_x, kept_y = envelope(x, y, 100)
    assert len(kept_x) <= 200
    assert kept_y.max() == 9
    assert kept_y.min() == -4
    assert (np.diff(kept_x) > 0).all()


def test_thinning_keeps_both_ends():
    assert spread_indices(1000, 5).tolist() == [0, 250, 500, 749, 999]
    assert spread_indices(3, 5).tolist() == [0, 1, 2]


def test_values_that_are_not_finite_are_left_out():
    x, y = finite(np.array([1.0, 2.0, 3.0]), np.array([0.5, np.nan, np.inf]))
    assert (x.tolist(), y.tolist()) == ([1.0], [0.5])
