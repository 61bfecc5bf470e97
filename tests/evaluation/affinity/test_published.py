"""The published protocol: one PCA per side, three distances."""

import numpy as np
import pytest

from sailvit.core.errors import DataError
from sailvit.evaluation.affinity.published import published_affinity
from sailvit.models.measures.rows import ArrayRows

NAMES = ("nearest", "wasserstein", "mean")


def cloud(rows, width, seed=0, scale=(3.0, 2.0)):
    """Gaussian rows that vary in two directions above all."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, width)) * np.r_[scale, np.full(width - 2, 0.01)]


def images(seed=0, count=4, patches=60, width=12):
    rows = cloud(count * patches, width, seed)
    return list(rows.reshape(count, patches, width))


def test_sides_of_other_widths_are_compared():
    found = published_affinity(images(width=12), ArrayRows(cloud(300, 30, 1)))
    assert found.visual.shape == (240, 2)
    assert found.text.shape == (300, 2)
    assert min(found.explained["visual"]) > 0.2
    assert sum(found.explained["text"]) > 0.99
    assert set(found.distances) == set(NAMES)


def test_each_side_is_centred_so_a_gap_of_the_means_is_not_seen():
    text = ArrayRows(cloud(300, 30, 1))
    near = published_affinity(images(), text)
    far = published_affinity([image + 100 for image in images()], text)
    for name in NAMES:
        assert far.distances[name].value == pytest.approx(near.distances[name].value, rel=1e-6)
    assert np.abs(far.visual.mean(axis=0)).max() < 1e-9


def test_one_cloud_on_both_sides_is_no_distance_apart():
    rows = cloud(240, 12)
    found = published_affinity(list(rows.reshape(4, 60, 12)), ArrayRows(rows))
    assert found.distances["nearest"].value == pytest.approx(0, abs=1e-9)
    assert found.distances["wasserstein"].value == pytest.approx(0, abs=1e-9)


def test_samples_of_one_distribution_are_as_near_as_by_chance():
    found = published_affinity(images(3, 8, 60), ArrayRows(cloud(480, 12, 7)))
    for name, tolerance in (("nearest", 0.2), ("mean", 0.05), ("wasserstein", 0.4)):
        each = found.distances[name]
        assert each.value == pytest.approx(each.chance, rel=tolerance)
        assert each.low <= each.value <= each.high or name == "wasserstein"


def test_mirroring_has_a_range_that_holds_the_value():
    rng = np.random.default_rng(0)
    visual, text = (cloud(rows, 12) for rows in (240, 300))
    # Long tails to one side along the widest direction.
    visual[:, 0], text[:, 0] = (5 * rng.exponential(size=len(each)) for each in (visual, text))
    found = published_affinity(list(visual.reshape(4, 60, 12)), ArrayRows(text))
    for name in NAMES:
        low, high = found.mirrored[name]
        assert low - 1e-9 <= found.distances[name].value <= high + 1e-9
    assert found.mirrored["wasserstein"][1] > 1.2 * found.mirrored["wasserstein"][0]


def test_one_image_has_no_interval_and_the_same_seed_gives_the_same_bits():
    text = ArrayRows(cloud(300, 30, 1))
    one = published_affinity(images(count=1), text, seed=4)
    again = published_affinity(images(count=1), text, seed=4)
    assert one.distances["mean"].low is None
    assert one.to_json() == again.to_json()


def test_features_that_are_not_finite_are_refused():
    broken = images()
    broken[0][0, 0] = np.nan
    with pytest.raises(DataError, match="visual features hold NaN"):
        published_affinity(broken, ArrayRows(cloud(300, 30, 1)))
