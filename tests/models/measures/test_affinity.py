"""Affinity on sets whose distances are known by hand."""

import json

import numpy as np
import pytest

from sailvit.core.errors import DataError
from sailvit.models.measures.affinity import DRAWN, affinity


def gaussian(rows, width=2, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width))


def test_a_shifted_set_is_as_far_as_its_shift():
    text = gaussian(300)
    found = affinity(text + np.array([3.0, 4.0]), text)
    assert found.wasserstein == pytest.approx(5.0, abs=1e-9)
    assert found.nearest <= found.wasserstein <= found.mean


def test_the_same_set_has_no_distance_but_its_spread():
    points = gaussian(200, width=8)
    found = affinity(points, points[::-1])
    assert found.nearest == pytest.approx(0, abs=1e-12)
    assert found.wasserstein == pytest.approx(0, abs=1e-12)
    assert found.mean > 1


def test_mean_distance_counts_every_pair():
    found = affinity(
        np.array([[0.0, 0.0], [0.0, 4.0]]), np.array([[3.0, 0.0], [3.0, 4.0], [0.0, 4.0]])
    )
    assert found.mean == pytest.approx((3 + 5 + 4 + 5 + 3 + 0) / 6)
    assert found.nearest == pytest.approx((3 + 0) / 2)


def test_distances_scale_with_the_features_and_ignore_a_common_shift():
    visual, text = gaussian(80, width=6), gaussian(120, width=6, seed=1) + 1
    plain, scaled, moved = (
        affinity(visual, text),
        affinity(3 * visual, 3 * text),
        affinity(visual + 7, text + 7),
    )
    for name in ("nearest", "wasserstein", "mean"):
        assert getattr(scaled, name) == pytest.approx(3 * getattr(plain, name))
        assert getattr(moved, name) == pytest.approx(getattr(plain, name))


def test_a_gap_in_any_direction_of_a_wide_space_survives_the_projection():
    text = 0.1 * gaussian(200, width=64)
    gap = np.full(64, 1.0)
    assert affinity(text + gap, text).wasserstein == pytest.approx(8.0, rel=1e-2)


def test_unequal_sets_are_sampled_by_the_seed_alone():
    visual, text = gaussian(50, width=5), gaussian(400, width=5, seed=1)
    first, again, other = (affinity(visual, text, seed=seed) for seed in (1, 1, 2))
    assert first.wasserstein == again.wasserstein
    assert np.array_equal(first.visual, again.visual)
    assert first.wasserstein != other.wasserstein
    assert first.nearest == other.nearest


def test_half_precision_input_gives_finite_double_precision():
    found = affinity(
        gaussian(30, width=4).astype(np.float16), gaussian(30, width=4, seed=1).astype(np.float32)
    )
    assert found.visual.dtype == np.float64
    assert np.isfinite([found.nearest, found.wasserstein, found.mean]).all()


def test_json_holds_the_layout_of_the_report_and_few_points():
    stored = json.loads(json.dumps(affinity(gaussian(DRAWN + 200), gaussian(40, seed=1)).to_json()))
    assert len(stored["visual"]) == DRAWN
    assert len(stored["text"]) == 40
    assert set(stored["distances"]) == {"nearest", "wasserstein", "mean"}
    assert stored["counts"] == {"visual": DRAWN + 200, "text": 40}
    assert sum(stored["explained"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("visual", "text", "message"),
    [
        (np.zeros((3, 4)), np.zeros((3, 5)), "connector"),
        (np.zeros((0, 4)), np.zeros((3, 4)), "visual"),
        (np.zeros((3, 4)), np.full((3, 4), np.nan), "text"),
        (np.zeros(4), np.zeros((3, 4)), "shape"),
    ],
)
def test_sets_without_a_common_plane_are_refused(visual, text, message):
    with pytest.raises(DataError, match=message):
        affinity(visual, text)
