"""Alignment of paired items: copies, rotations, chance."""

import numpy as np
import pytest

from sailvit.evaluation.affinity.paired import PAIRINGS, neighbour_overlap, retrieval
from sailvit.models.measures.drift import linear_cka


def gaussian(rows, width=12, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width))


def rotated(rows, seed=5):
    turn, _ = np.linalg.qr(gaussian(rows.shape[1], rows.shape[1], seed))
    return 3 * rows @ turn


@pytest.mark.parametrize("name", PAIRINGS)
def test_rotated_and_scaled_copies_are_wholly_alike(name):
    rows = gaussian(80)
    found = PAIRINGS[name](rows, rotated(rows))
    assert found.value == pytest.approx(1, abs=1e-9)
    assert found.chance < 0.5
    assert found.n == 80


@pytest.mark.parametrize("name", PAIRINGS)
def test_independent_items_are_alike_as_by_chance(name):
    found = PAIRINGS[name](gaussian(150, 6), gaussian(150, 9, seed=1))
    assert found.value == pytest.approx(found.chance, abs=0.04)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("name", ["linear_cka", "kernel_cka"])
def test_of_unrelated_items_cka_holds_its_value_and_is_not_clear_of_chance(name):
    # Many columns that fade, as those of towers do: CKA of few items is far above 0.
    fading = 1 / np.sqrt(np.arange(1, 257))
    clear = 0
    for seed in range(8):
        sides = [gaussian(128, 256, 2 * seed + side) * fading for side in range(2)]
        found = PAIRINGS[name](*sides, seed=seed)
        assert found.low <= found.value <= found.high
        clear += found.low > found.chance
    assert clear <= 1


def test_linear_cka_is_the_one_of_drift():
    import torch

    one, other = gaussian(60), gaussian(60, 7, seed=2) + gaussian(60)[:, :7]
    expected = linear_cka(torch.from_numpy(one), torch.from_numpy(other))
    assert PAIRINGS["linear_cka"](one, other).value == pytest.approx(expected)


def test_neighbours_in_common_are_counted():
    # Two groups of points far apart; the other side swaps two items between them.
    groups = np.repeat([[1.0, 0.0], [0.0, 1.0]], 6, axis=0) + 0.01 * gaussian(12, 2)
    swapped = groups.copy()
    swapped[[0, 6]] = groups[[6, 0]]
    near = neighbour_overlap(groups, groups)
    changed = neighbour_overlap(groups, swapped)
    assert near.value == 1
    assert changed.value < 0.9


def test_captions_are_found_in_a_common_space():
    texts = gaussian(64)
    found = retrieval(texts + 0.01 * gaussian(64, seed=1), texts)
    assert found["image_to_text_at_1"].value == 1
    assert found["text_to_image_at_5"].value == 1
    assert found["image_to_text_at_1"].chance == pytest.approx(1 / 64, abs=0.02)
    assert found["image_to_text_at_5"].chance == pytest.approx(5 / 64, abs=0.04)


def test_equal_captions_are_all_right():
    texts = np.repeat(gaussian(4), 4, axis=0)
    found = retrieval(texts, texts)
    assert found["image_to_text_at_1"].value == 1
    assert found["image_to_text_at_1"].chance == pytest.approx(0.25, abs=0.12)
