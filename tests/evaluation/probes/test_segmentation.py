"""Segmentation: labels of patches, scores at pixels, layouts, and damaged maps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from labelled_files import encoded
from PIL import Image

from sailvit.core.errors import DataError
from sailvit.data.processing.label_maps import encoded_label_map, read_label_map
from sailvit.evaluation.probes.drawn import write_world
from sailvit.evaluation.probes.heads.training import UNLABELLED, Fitting
from sailvit.evaluation.probes.segmentation import (
    MapLabels,
    Segmentation,
    _Hits,
    patch_labels,
    sampled,
    shown_size,
)
from sailvit.evaluation.probes.sets.labelled import in_classes_of
from sailvit.evaluation.probes.sets.maps import MapFolder, has_maps, open_maps
from sailvit.evaluation.probes.sets.opening import open_labelled
from sailvit.synthetic.world.rendering import MAP_CLASSES


def write_maps(folder, split, maps, images="images", labels="labels"):
    for index, given in enumerate(maps):
        values = np.asarray(given, np.uint8)
        for kind, content in (
            (images, encoded(np.repeat(values[..., None] * 20, 3, axis=-1))),
            (labels, encoded_label_map(values)),
        ):
            place = folder / kind / split / f"{index}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    return folder


def halves(value: int, side: int = 16) -> np.ndarray:
    found = np.zeros((side, side), np.uint8)
    found[:, side // 2 :] = value
    return found


def test_layouts_and_pairs_by_name(tmp_path):
    write_maps(tmp_path / "a", "train", [halves(1)] * 3)
    write_maps(tmp_path / "a", "val", [halves(1)])
    (tmp_path / "a" / "images" / "val" / "extra.png").write_bytes(
        encoded(np.zeros((4, 4, 3), np.uint8))
    )
    sets = open_maps(tmp_path / "a")
    assert (len(sets.train), list(sets.tests), sets.ignored) == (3, ["val"], (255,))
    assert "1 images have no label map" in sets.notes[0]
    ade = write_maps(tmp_path / "b", "training", [halves(1)], labels="annotations")
    write_maps(ade, "validation", [halves(1)], labels="annotations")
    assert open_maps(ade).ignored == (0, 255)
    beside = write_maps(tmp_path / "c" / "train", "", [halves(2)] * 5)
    assert has_maps(beside.parent)
    alone = open_maps(beside.parent)
    assert (len(alone.train), len(alone.tests["held-out"])) == (4, 1)
    assert alone.train.fingerprint == open_maps(beside.parent).train.fingerprint


def test_folders_that_share_no_name_are_refused(tmp_path):
    write_maps(tmp_path, "", [halves(1)])
    (tmp_path / "labels" / "0.png").rename(tmp_path / "labels" / "0_map.png")
    with pytest.raises(DataError, match=r"no image of .* has a label map of its name"):
        open_maps(tmp_path)


def test_palettes_and_16_bits_are_numbers_and_colours_are_refused(tmp_path):
    values = np.array([[0, 3], [2, 1]], np.uint8)
    indexed = Image.fromarray(values, mode="P")
    indexed.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    indexed.save(tmp_path / "p.png")
    assert read_label_map(tmp_path / "p.png").tolist() == values.tolist()
    Image.fromarray(np.array([[0, 1000]], np.uint16)).save(tmp_path / "deep.png")
    assert read_label_map(tmp_path / "deep.png").tolist() == [[0, 1000]]
    Image.new("RGB", (2, 2)).save(tmp_path / "rgb.png")
    with pytest.raises(DataError, match="one number per pixel"):
        read_label_map(tmp_path / "rgb.png")
    (tmp_path / "bad.png").write_bytes(b"x")
    with pytest.raises(DataError, match="no readable label map"):
        read_label_map(tmp_path / "bad.png")


def test_maps_whose_numbers_a_jpeg_changed_are_refused(tmp_path):
    Image.fromarray(halves(7)).save(tmp_path / "map.jpg")
    with pytest.raises(DataError, match="is a JPEG, whose losses make other numbers"):
        read_label_map(tmp_path / "map.jpg")


def test_patches_get_the_class_of_most_of_their_pixels(tmp_path):
    tall = np.zeros((32, 16), np.uint8)
    tall[:, 9:] = 7
    write_maps(tmp_path, "", [tall, halves(255)])
    found = patch_labels(MapFolder(tmp_path / "images", tmp_path / "labels"), 2, (255,), 1)
    assert found.patches[0].tolist() == [0, 7, 0, 7]
    assert found.patches[1].tolist() == [0, 255, 0, 255]
    assert found.values == (0, 7, 255)


def test_maps_of_another_size_are_left_out(tmp_path):
    write_maps(tmp_path, "", [halves(1), halves(1)])
    (tmp_path / "labels" / "1.png").write_bytes(encoded_label_map(halves(1, side=8)))
    images = MapFolder(tmp_path / "images", tmp_path / "labels")
    found = patch_labels(images, 2, (255,), 1)
    assert list(found.unusable) == [1]
    assert "8 x 8, but its image has 16 x 16" in found.unusable[1]
    assert found.patches[1].tolist() == [UNLABELLED] * 4
    for path in (tmp_path / "labels").glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"no label map of 2 has a class that counts: .*readable"):
        patch_labels(images, 2, (255,), 1)


def run_of(tmp_path, classes):
    sets = open_maps(write_maps(tmp_path, "", [halves(1)] * 5))
    labels = MapLabels(np.zeros((5, 4), np.int64), classes, {})
    return Segmentation(sets, 2, None, {}, labels, Fitting())


def test_scores_are_intersections_over_unions(tmp_path):
    run, hits = run_of(tmp_path, (0, 3, 255)), _Hits(2)
    assert run.classes == (0, 3)
    truth = halves(3)
    truth[:2] = 255
    truth[2:4] = 9  # a class that training never had
    wrong = torch.tensor([[5.0, 0], [5, 0], [5, 0], [5, 0]])  # background everywhere
    right = torch.tensor([[5.0, 0], [0, 5], [5, 0], [0, 5]])
    hits.add(wrong, truth, run)
    hits.add(right, truth, run)
    first, second = hits.outcomes(2, "x", chosen=0.5, settings="")
    # 12 rows of 8 and 8 pixels count. Class 0: 96 + 96 of 192 + 96; class 3: 0 + 96 of 96 + 96.
    assert first.value == pytest.approx(100 * (192 / 288 + 96 / 192) / 2)
    assert second.value == pytest.approx(75.0)
    assert not second.main


def test_maps_are_scored_at_their_own_shape_and_at_most_512():
    assert shown_size((100, 60)) == (100, 60)
    assert shown_size((2048, 1024)) == (512, 256)
    labels = np.arange(16, dtype=np.int32).reshape(4, 4)
    assert sampled(labels, 2, 2).tolist() == [[5, 7], [13, 15]]
    assert sampled(labels, 8, 4)[::2].tolist() == labels.tolist()


def test_the_world_has_exact_maps_and_glyphs(tmp_path):
    folders = write_world(tmp_path, 300, 60)
    assert write_world(tmp_path, 300, 60) == folders
    glyphs, maps = open_labelled(folders[0]), open_maps(folders[1])
    assert len(glyphs.train) == len(maps.train) == 300
    assert in_classes_of(glyphs.train, glyphs.tests["test"], "test").max() < 20
    said = json.loads((folders[0].parent / "world.json").read_text())["maps"]
    assert list(said.values()) == list(MAP_CLASSES)
    found = patch_labels(maps.train, 8, (), 1)
    assert set(found.values) == set(range(len(MAP_CLASSES)))
    assert not found.unusable
