"""Distances in full width: shifts, scales and samples of one distribution."""

import numpy as np
import pytest
import torch

from sailvit.core.memory import PeakMemory
from sailvit.evaluation.affinity.joint import joint_distances
from sailvit.models.measures.affinity import joint_affinity
from sailvit.models.measures.rows import ArrayRows


def gaussian(rows, width=16, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def images(rows, count=6):
    return np.array_split(rows, count)


def test_a_shift_is_as_far_as_it_is_long():
    text, shift = gaussian(600), np.zeros(16, dtype=np.float32)
    shift[3] = 50
    found = joint_distances(images(text + shift), ArrayRows(text))
    assert found["centroids"].value == pytest.approx(50, rel=1e-4)
    # Over 128 directions of 16 dimensions, relative to the mean over all.
    assert found["sliced_wasserstein"].value == pytest.approx(50, rel=0.15)
    assert found["nearest"].value < found["mean"].value
    assert found["nearest"].value == pytest.approx(50, rel=0.15)


def test_rows_that_are_there_are_found_exactly():
    text = gaussian(500, 40)
    found = joint_distances(images(text[100:160]), ArrayRows(text))
    assert found["nearest"].value == pytest.approx(0, abs=1e-3)
    expected = np.linalg.norm(text[100:160, None] - text[None], axis=2).mean()
    assert found["mean"].value == pytest.approx(expected, rel=1e-5)


def test_samples_of_one_distribution_are_as_near_as_by_chance():
    found = joint_distances(images(gaussian(400, seed=1)), ArrayRows(gaussian(900, seed=2)))
    for name, tolerance in {"nearest": 0.05, "mean": 0.03, "sliced_wasserstein": 0.4}.items():
        for each in (found[name], found[f"unit_{name}"]):
            assert each.value == pytest.approx(each.chance, rel=tolerance)
    assert found["centroids"].value == pytest.approx(found["centroids"].chance, rel=0.4)


def test_unit_rows_do_not_see_a_scale():
    visual, text = gaussian(200) + 1, ArrayRows(gaussian(500, seed=3))
    plain, shrunk = (joint_distances(images(each), text) for each in (visual, visual / 9))
    for name in ("nearest", "mean", "centroids", "sliced_wasserstein"):
        unit = f"unit_{name}"
        assert shrunk[unit].value == pytest.approx(plain[unit].value, rel=1e-4)
        assert shrunk[name].value != pytest.approx(plain[name].value, rel=0.1)


def test_intervals_hold_the_value():
    moved = [each + n for n, each in enumerate(images(gaussian(300)))]
    found = joint_distances(moved, ArrayRows(gaussian(500, seed=3)))
    for name in ("nearest", "mean", "centroids"):
        assert found[name].low < found[name].value < found[name].high


def test_rows_that_were_dealt_may_be_all_of_a_block(monkeypatch):
    # The last block of the pool is a single row, which every deal takes.
    monkeypatch.setattr("sailvit.evaluation.affinity.joint._DEALT", 65)
    monkeypatch.setattr("sailvit.evaluation.affinity.joint.BLOCK", 32)
    monkeypatch.setattr("sailvit.models.measures.rows.BLOCK", 32)
    monkeypatch.setattr("sailvit.models.measures.rows.blocks.__defaults__", (32,))
    found = joint_distances(images(gaussian(94), 2), ArrayRows(gaussian(3, seed=1)))
    assert np.isfinite(found["nearest"].chance)


class Drawn:
    """A table that is made as it is read."""

    def __init__(self, rows, width):
        self._rows, self.width = rows, width

    def __len__(self):
        return self._rows

    def read(self, start, stop):
        rng = np.random.default_rng(start)
        return rng.standard_normal((stop - start, self.width), dtype=np.float32)


def test_a_vocabulary_never_lies_in_memory_whole():
    table = Drawn(150_000, 256)
    peak = PeakMemory(torch.device("cpu"))
    peak.restart()
    before = peak.bytes()
    joint_affinity(ArrayRows(gaussian(40, 256)), table)
    # 146 MB in float32, 293 MB in float64.
    assert (peak.bytes() - before) / 2**20 < 120
