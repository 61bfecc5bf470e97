"""Linear CKA on features whose likeness is known."""

from __future__ import annotations

import math

import pytest
import torch

from sailvit.models.measures.drift import linear_cka


def features(rows: int = 500, width: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def test_it_is_one_for_the_same_and_for_what_a_connector_undoes():
    x = features()
    turn = torch.linalg.qr(features(16))[0]
    assert linear_cka(x, x) == pytest.approx(1, abs=1e-12)
    assert linear_cka(3 * x @ turn + 5, x) == pytest.approx(1, abs=1e-6)


def test_it_is_small_for_features_that_have_nothing_to_do_with_each_other():
    assert linear_cka(features(seed=1), features(seed=2)) < 0.05


def test_it_falls_as_noise_is_added_and_is_the_same_both_ways():
    x, noise = features(), features(seed=3)
    found = [linear_cka(x + amount * noise, x) for amount in (0.1, 0.5, 1, 4)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.98
    assert linear_cka(noise, x) == pytest.approx(linear_cka(x, noise))


def test_widths_may_differ_and_a_constant_side_has_no_likeness():
    x = features()
    assert linear_cka(torch.cat([x, x], dim=1), x) == pytest.approx(1, abs=1e-9)
    assert math.isnan(linear_cka(torch.ones(500, 16), x))


def test_by_hand():
    one, other = torch.tensor([[1.0], [-1.0], [0.0]]), torch.tensor([[1.0], [0.0], [-1.0]])
    assert linear_cka(one, other) == pytest.approx(0.25)
