"""Slopes: the line, and errors that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from sailvit.training.optim.slopes import fit_line


def test_a_straight_line_is_found_without_error():
    line = fit_line([3.0 - 0.25 * step for step in range(9)])
    assert (line.slope, line.end) == pytest.approx((-0.25, 1.0))
    assert (line.slope_error, line.end_error) == pytest.approx((0.0, 0.0), abs=1e-12)


def test_the_fit_is_least_squares_with_its_covariance():
    losses = np.random.default_rng(0).normal(size=30) + np.linspace(2, 1, 30)
    (slope, start), covariance = np.polyfit(np.arange(30), losses, 1, cov="unscaled")
    scatter = np.square(losses - start - slope * np.arange(30)).sum() / 28
    line = fit_line(losses.tolist())
    assert (line.slope, line.end) == pytest.approx((slope, start + 29 * slope))
    at_end = np.array([29.0, 1.0])
    expected = [scatter * covariance[0, 0], scatter * at_end @ covariance @ at_end]
    assert [line.slope_error**2, line.end_error**2] == pytest.approx(expected)


def test_errors_cover_the_truth_as_often_as_they_say():
    """One standard error holds the true value in 68 % of windows, so in 2000 of them within 3 % of that."""
    rng = np.random.default_rng(1)
    lines = [
        fit_line((4 - 0.1 * np.arange(40) + rng.normal(scale=0.5, size=40)).tolist())
        for _ in range(2000)
    ]
    near = np.mean([abs(line.slope + 0.1) < line.slope_error for line in lines])
    ends = np.mean([abs(line.end - 0.1) < line.end_error for line in lines])
    assert [near, ends] == pytest.approx([0.683, 0.683], abs=0.03)


def test_the_error_falls_with_the_window_to_the_power_of_one_and_a_half():
    rng = np.random.default_rng(2)
    errors = [
        np.mean([fit_line(rng.normal(size=n).tolist()).slope_error for _ in range(300)])
        for n in (50, 100)
    ]
    assert errors[0] / errors[1] == pytest.approx(2**1.5, rel=0.03)
