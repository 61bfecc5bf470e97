"""The modality integration rate, and the two scores of the Law of Vision Representation."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm

from sailvit.core.errors import DataError
from sailvit.evaluation.affinity.integration import frechet, integration_rate, layer_distance
from sailvit.evaluation.affinity.law import (
    KeyPoints,
    alignment_score,
    correspondence_score,
    patch_centres,
)
from sailvit.evaluation.affinity.pictures import Picture
from sailvit.evaluation.affinity.spair import annotated_pairs, cropped_pairs, read_pair
from tiny_parts import picture


def gaussian(rows, width=6, seed=0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("rows", [(200, 150), (4, 90), (5, 3)])
def test_the_frechet_distance_is_that_of_a_matrix_root(rows):
    one, other = gaussian(rows[0]), 2 * gaussian(rows[1], seed=1) + 1
    covariances = [np.cov(side.numpy().T) for side in (one, other)]
    root = np.trace(sqrtm(covariances[0] @ covariances[1])).real
    gap = float((one.mean(dim=0) - other.mean(dim=0)).square().sum())
    expected = gap + sum(map(np.trace, covariances)) - 2 * root
    assert frechet(one, other) == pytest.approx(expected, rel=1e-3)


def test_a_layer_does_not_see_a_common_scale_nor_an_outlier():
    visual, text = gaussian(300) + 1, gaussian(300, seed=1)
    plain = layer_distance(visual, text)
    assert layer_distance(visual * 7, text * 7) == pytest.approx(plain)
    sunk = visual.clone()
    sunk[0] = 1000
    assert layer_distance(sunk, text) == pytest.approx(plain, rel=0.05)


def test_the_rate_is_the_logarithm_of_the_sum_over_layers():
    items = [[gaussian(40, seed=n) + 2, gaussian(40, seed=n + 50) + 3] for n in range(6)]
    words = [[gaussian(30, seed=n + 90), gaussian(30, seed=n + 140)] for n in range(6)]
    found = integration_rate(items, words)
    assert len(found.layers) == 2
    assert found.rate.value == pytest.approx(np.log10(sum(found.layers)))
    assert found.rate.low <= found.rate.high
    assert found.rate.chance < found.rate.value


def test_the_alignment_score_is_1_for_the_reference_in_another_order():
    reference = [gaussian(9, 8, seed=n).numpy() for n in range(12)]
    found = alignment_score([each[::-1] * 3 for each in reference], reference)
    assert found.value == pytest.approx(1)
    assert found.chance < 0.9
    by_hand = alignment_score([np.array([[1.0, 0.0]])], [np.array([[1.0, 1.0], [0.0, -1.0]])])
    assert by_hand.value == pytest.approx(2**-0.5)
    with pytest.raises(DataError, match="one language"):
        alignment_score([np.zeros((2, 3))], [np.zeros((2, 4))])


def test_points_are_found_where_their_patch_is():
    grid = (4, 4)
    patches = np.eye(16)
    order = np.random.default_rng(0).permutation(16)
    centres = patch_centres(grid)
    # Patch i of the first picture is patch order[i] of the second.
    target = np.zeros((16, 16))
    target[order] = patches
    points = KeyPoints(centres, centres[order])
    assert correspondence_score([(patches, target, points)], grid).value == 1
    off = KeyPoints(centres, centres[order] + np.array([0.3, 0]))
    assert correspondence_score([(patches, target, off)], grid).value == 0
    assert correspondence_score([(patches, target, points)] * 9, grid).chance < 0.3


def test_the_reach_follows_the_object():
    grid, centres = (4, 4), patch_centres((4, 4))
    near = centres + np.array([0.04, 0])
    for extent, share in ((100.0, 1.0), (30.0, 0.0)):
        points = KeyPoints(centres, near, (100.0, 100.0), extent)
        found = correspondence_score([(np.eye(16), np.eye(16), points)], grid)
        assert found.value == share


def test_a_part_of_a_picture_lies_where_it_was_cut():
    shown = Picture("one", picture(3, 100, 80))
    (part, whole, points), *_ = cropped_pairs([shown], (4, 4), seed=1)
    at = points.target[5] * (100, 80)
    inside = points.source[5] * (part.shape[1], part.shape[0])
    assert (
        np.array_equal(
            part[int(inside[1]), int(inside[0])], whole[round(at[1] - 0.5), round(at[0] - 0.5)]
        )
        or np.abs(at - np.floor(at)).max() > 0
    )
    assert points.target.min() >= 0
    assert points.target.max() <= 1


def test_pairs_of_spair_are_read(tmp_path):
    places = tmp_path / "JPEGImages" / "cat"
    places.mkdir(parents=True)
    for name in ("a", "b"):
        Image.fromarray(picture(1, 40, 20)).save(places / f"{name}.jpg")
    notes = tmp_path / "PairAnnotation" / "test"
    notes.mkdir(parents=True)
    facts = {
        "category": "cat",
        "src_imname": "a.jpg",
        "trg_imname": "b.jpg",
        "src_kps": [[10, 5]],
        "trg_kps": [[20, 10]],
        "trg_bndbox": [0, 0, 30, 10],
    }
    (notes / "0.json").write_text(json.dumps(facts))
    (file,) = annotated_pairs(tmp_path)
    _, _, points = read_pair(tmp_path, file)
    assert points.source.tolist() == [[0.25, 0.25]]
    assert points.target.tolist() == [[0.5, 0.5]]
    assert (points.size, points.extent) == ((40, 20), 30)
    (notes / "0.json").write_text("{}")
    with pytest.raises(DataError, match="no pair of SPair-71k"):
        read_pair(tmp_path, file)
    with pytest.raises(DataError, match="PairAnnotation"):
        annotated_pairs(tmp_path / "JPEGImages")
