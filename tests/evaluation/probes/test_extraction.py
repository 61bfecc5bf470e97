"""Features: equal to the tower's own, of every layer, kept, resumed, and shared by processes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from labelled_files import write_folders

import sailvit
from sailvit.core.errors import DataError, ModelError, RunError
from sailvit.evaluation.probes.features import extraction as module
from sailvit.evaluation.probes.features.extraction import Extraction, extract
from sailvit.evaluation.probes.features.layers import block_count, layered, read_layers
from sailvit.evaluation.probes.features.store import DONE, FAILED, FeatureStore, tower_hash
from sailvit.evaluation.probes.sets.class_folder import ClassFolder
from two_processes import in_two


@pytest.fixture
def images(tmp_path):
    return ClassFolder(write_folders(tmp_path / "set", ["a", "b", "c"], 7))


def settings(tmp_path, **given):
    return Extraction(**{"cache": tmp_path / "cache", "layers": (1, 2), "batch": 4, **given})


def features(parts, name, images, how, **given):
    tower = sailvit.load_tower(parts.tower(name)).tower
    found = extract(layered(tower, how.layers), images, "set", how, key=tower_hash(tower), **given)
    return tower, found


@pytest.mark.parametrize("name", ["siglip", "dinov2", "clip", "siglip2"])
def test_every_layer_is_that_of_the_tower_alone(parts, images, tmp_path, name):
    _, found = features(parts, name, images, settings(tmp_path, tokens=True))
    paths = [images.image(place) for place in range(len(images))]
    for layer in (1, 2):
        alone = sailvit.load_tower(parts.tower(name), feature_layer=-1 if layer == 2 else layer)(
            paths
        )
        means = torch.from_numpy(np.array(found.store.means(layer)))
        torch.testing.assert_close(means, alone.mean(dim=1), rtol=1e-4, atol=1e-5)
        tokens = torch.from_numpy(np.array(found.store.tokens(layer))).float()
        torch.testing.assert_close(tokens, alone, rtol=1e-3, atol=1e-3)
    assert found.kept.tolist() == list(range(21))


def test_what_is_done_is_not_computed_again(parts, images, tmp_path, monkeypatch):
    how = settings(tmp_path)
    write, written = FeatureStore.write, []

    def dying(self, name, start, rows):
        if start >= 12:
            raise KeyboardInterrupt
        written.append((name, start))
        write(self, name, start, rows)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "write", dying)
        with pytest.raises(KeyboardInterrupt):
            features(parts, "siglip", images, how)
    counts = []
    features(parts, "siglip", images, how, seen=lambda done, total: counts.append((done, total)))
    assert counts == [(4, 9), (8, 9), (9, 9)]
    counts.clear()
    _, found = features(parts, "siglip", images, how, seen=lambda *at: counts.append(at))
    assert not counts
    _, fresh = features(parts, "siglip", images, settings(tmp_path, cache=tmp_path / "other"))
    assert np.array_equal(found.store.means(2), fresh.store.means(2))


def test_another_tower_set_or_layer_has_features_of_its_own(parts, images, tmp_path):
    how = settings(tmp_path)
    places = {
        features(parts, "siglip", images, how)[1].store.folder,
        features(parts, "vit", images, how)[1].store.folder,
        features(parts, "siglip", images, replace(how, layers=(2,)))[1].store.folder,
    }
    (tmp_path / "set" / "a" / "0.png").unlink()
    again = ClassFolder(tmp_path / "set")
    places.add(features(parts, "siglip", again, how)[1].store.folder)
    assert len(places) == 4


def test_images_that_do_not_decode_are_left_out_and_named(parts, images, tmp_path):
    (tmp_path / "set" / "b" / "3.png").write_bytes(b"no picture")
    _, found = features(parts, "siglip", images, settings(tmp_path))
    assert found.store.states[10] == FAILED
    assert (found.store.states == DONE).sum() == 20
    assert 10 not in found.kept
    assert [bad.position for bad in found.bad] == [10]
    assert "3.png" in found.bad[0].reason


def test_a_set_of_damaged_images_is_refused(parts, tmp_path):
    write_folders(tmp_path / "set", ["a", "b"], 1)
    for path in (tmp_path / "set").glob("*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"no image of set set can be decoded: .*png"):
        features(parts, "siglip", ClassFolder(tmp_path / "set"), settings(tmp_path))


def test_two_processes_share_the_images(parts, images, tmp_path):
    how = settings(tmp_path)
    source = parts.tower("siglip")

    def work(index):
        counts = []
        tower = sailvit.load_tower(source).tower
        found = extract(
            layered(tower, how.layers),
            images,
            "set",
            how,
            key=tower_hash(tower),
            seen=lambda *at: counts.append(at),
        )
        assert counts[-1] == ((12, 12), (9, 9))[index]
        assert len(found.kept) == 21

    assert in_two(tmp_path, work) == ["done", "done"]
    _, alone = features(parts, "siglip", images, settings(tmp_path, cache=tmp_path / "other"))
    _, shared = features(parts, "siglip", images, how)
    assert np.array_equal(shared.store.means(1), alone.store.means(1))


def test_a_full_disk_is_told_before_the_work(parts, images, tmp_path, monkeypatch):
    monkeypatch.setattr("sailvit.evaluation.probes.features.store._SPARE", 0.0)
    with pytest.raises(RunError, match=r"--layers -1"):
        features(parts, "siglip", images, settings(tmp_path))


def test_features_beyond_float16_are_refused(parts, images, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LARGEST", 1e-3)
    with pytest.raises(ModelError, match="float16 ends"):
        features(parts, "siglip", images, settings(tmp_path, tokens=True))


def test_layers_are_named_by_number(parts):
    tower = sailvit.load_tower(parts.tower("siglip")).tower
    assert block_count(tower) == 2
    assert read_layers("all", 4) == (1, 2, 3, 4)
    assert read_layers("last", 4) == (4,)
    assert read_layers("-1,2,-3", 4) == (2, 4)
    for wrong in ("0", "5", "-5", "1,x"):
        with pytest.raises(DataError, match="--layers"):
            read_layers(wrong, 4)


def test_a_key_is_of_weights_and_pixels(parts):
    towers = [sailvit.load_tower(parts.tower("siglip")).tower for _ in range(2)]
    assert tower_hash(towers[0]) == tower_hash(towers[1])
    with torch.no_grad():
        next(towers[1].model.parameters()).view(-1)[0] += 1
    assert tower_hash(towers[0]) != tower_hash(towers[1])
