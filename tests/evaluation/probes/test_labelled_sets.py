"""Labelled sets: classes, their order, splits, formats, and what is refused or told."""

from __future__ import annotations

import numpy as np
import pytest
from labelled_files import coloured, encoded, write_folders, write_parquet, write_tar

from sailvit.core.errors import DataError
from sailvit.data.processing.images import load_image
from sailvit.evaluation.probes.sets.class_folder import ClassFolder, ImageFolder
from sailvit.evaluation.probes.sets.labelled import in_classes_of, sorted_names, split_by_class
from sailvit.evaluation.probes.sets.opening import is_labelled, open_labelled
from sailvit.evaluation.probes.sets.parquet import LabelledRows
from sailvit.evaluation.probes.sets.tars import LabelledTars


def test_folders_are_classes_sorted_by_name_with_images_below_them(tmp_path):
    write_folders(tmp_path, ["wolf", "ant"], 2)
    (tmp_path / "ant" / "deep").mkdir()
    (tmp_path / "ant" / "deep" / "x.JPEG").write_bytes(encoded(coloured(0, 9)))
    (tmp_path / "ant" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "empty").mkdir()
    found = ClassFolder(tmp_path)
    assert found.classes == ("ant", "wolf")
    assert found.labels.tolist() == [0, 0, 0, 1, 1]
    assert [found.image(n).name for n in range(5)] == ["0.png", "1.png", "x.JPEG", "0.png", "1.png"]
    assert "1 folders hold no image and are no classes: empty" in found.notes[0]
    assert len(ImageFolder(tmp_path)) == 5


def test_numbers_are_sorted_by_value():
    assert sorted_names(["10", "9", "1"]) == ("1", "9", "10")
    assert sorted_names(["b", "10", "9"]) == ("10", "9", "b")


def test_a_changed_picture_changes_the_fingerprint(tmp_path):
    write_folders(tmp_path, ["a", "b"], 2)
    before = ClassFolder(tmp_path).fingerprint
    assert ClassFolder(tmp_path).fingerprint == before
    (tmp_path / "a" / "0.png").write_bytes(encoded(coloured(1, 5, side=30)))
    assert ClassFolder(tmp_path).fingerprint != before


def test_test_sets_may_hold_some_classes_by_name_or_by_number(tmp_path):
    names = ["n01", "n02", "n03", "n04"]
    write_folders(tmp_path / "train", names, 3)
    write_folders(tmp_path / "a", ["n04", "n02"], 2)
    # As ImageNet-V2: folders are places among the sorted names.
    write_folders(tmp_path / "v2", ["3", "0"], 1)
    sets = open_labelled(tmp_path)
    assert set(sets.tests) == {"a", "v2"}
    assert sets.answers["a"].tolist() == [1, 1, 3, 3]
    assert sets.answers["v2"].tolist() == [0, 3]


def test_unknown_classes_are_named(tmp_path):
    train = ClassFolder(write_folders(tmp_path / "train", ["a", "b"], 2))
    test = ClassFolder(write_folders(tmp_path / "test", ["b", "zebra"], 2))
    with pytest.raises(DataError, match=r"set test has 1 classes .* zebra; it has a, b"):
        in_classes_of(train, test, "test")


def test_one_set_is_split_by_class_and_says_so(tmp_path):
    write_folders(tmp_path / "birds", ["a", "b"], 10)
    sets = open_labelled(tmp_path / "birds")
    assert np.bincount(sets.train.labels).tolist() == [8, 8]
    assert np.bincount(sets.answers["held-out"]).tolist() == [2, 2]
    shown = {str(sets.train.image(n)) for n in range(16)}
    assert shown.isdisjoint({str(sets.tests["held-out"].image(n)) for n in range(4)})
    assert "a fifth of every class is held out" in sets.notes[0]
    assert sets.train.fingerprint != sets.tests["held-out"].fingerprint


def test_splits_leave_every_class_an_image():
    labels = np.array([0, 0, 1, 2, 2, 2])
    first, second = split_by_class(labels, 0.9, 0)
    assert set(labels[first]) == {0, 1, 2}
    assert sorted([*first, *second]) == list(range(6))
    again = split_by_class(labels, 0.9, 0)
    assert all(np.array_equal(*pair) for pair in zip((first, second), again, strict=True))


def test_a_limit_keeps_every_class(tmp_path):
    write_folders(tmp_path / "train", ["a", "b"], 10)
    write_folders(tmp_path / "val", ["a", "b"], 10)
    sets = open_labelled(tmp_path, limit=6)
    assert np.bincount(sets.train.labels).tolist() == [3, 3]
    assert len(sets.tests["val"]) == 6


def test_parquet_files_have_labels_by_number_or_name(tmp_path):
    write_parquet(tmp_path / "data" / "train-0.parquet", [0, 1, 2] * 3, ["red", "blue", "ant"])
    write_parquet(tmp_path / "data" / "validation-0.parquet", ["ant", "red"])
    sets = open_labelled(tmp_path)
    # Sorted by name, so that files which number the names otherwise agree.
    assert sets.train.classes == ("ant", "blue", "red")
    assert sets.train.labels.tolist()[:3] == [2, 1, 0]
    assert sets.answers["validation"].tolist() == [0, 2]
    for place in (8, 0, 5):
        assert np.array_equal(load_image(sets.train.image(place)), coloured(place % 3, place))


def test_parquet_without_labels_is_refused(tmp_path):
    path = write_parquet(tmp_path / "test.parquet", [-1, -1])
    with pytest.raises(DataError, match="label -1; expected a number from 0 on"):
        LabelledRows([path])
    with pytest.raises(DataError, match=r"label 7; .* of 2 classes"):
        LabelledRows([write_parquet(tmp_path / "x.parquet", [0, 7], ["a", "b"])])


def test_tars_have_a_class_beside_every_image(tmp_path):
    members = {}
    for place in range(4):
        members[f"{place:04d}.png"] = encoded(coloured(place, place))
        members[f"{place:04d}.cls"] = str(10 - place).encode()
    members["orphan.png"] = encoded(coloured(0, 0))
    found = LabelledTars([write_tar(tmp_path / "train-0.tar", members)])
    assert found.classes == ("7", "8", "9", "10")
    assert found.labels.tolist() == [3, 2, 1, 0]
    assert np.array_equal(load_image(found.image(2)), coloured(2, 2))
    assert "1 images have no .cls" in found.notes[0]


def test_a_cut_tar_gives_the_samples_before_the_damage(tmp_path):
    members = {f"{n}.{end}": (b"%d" % n if end == "cls" else encoded(coloured(n, n)))
               for n in range(3) for end in ("cls", "png")}  # fmt: skip
    path = write_tar(tmp_path / "x.tar", members)
    path.write_bytes(path.read_bytes()[:-11000])
    found = LabelledTars([path])
    assert 2 <= len(found) <= 3
    assert any("cut or damaged" in note for note in found.notes)


def test_labels_that_are_none_are_refused(tmp_path):
    members = {"1.png": b"x", "1.cls": b"\xff\xfe"}
    with pytest.raises(DataError, match="expected the number or the name of a class"):
        LabelledTars([write_tar(tmp_path / "x.tar", members)])


@pytest.mark.parametrize(
    ("names", "message"), [(["a"], "one class alone"), ([], "no class with an image")]
)
def test_fewer_than_two_classes_are_refused(tmp_path, names, message):
    write_folders(tmp_path / "set", names, 2)
    (tmp_path / "set").mkdir(exist_ok=True)
    with pytest.raises(DataError, match=message):
        open_labelled(tmp_path / "set")


def test_kinds_are_told_from_files(tmp_path):
    assert is_labelled(write_folders(tmp_path / "a", ["x", "y"], 1))
    assert is_labelled(write_parquet(tmp_path / "b" / "train-0.parquet", [0, 1]).parent)
    assert not is_labelled(tmp_path / "a" / "x")
    assert not is_labelled(tmp_path / "nothing")
    with pytest.raises(DataError, match="does not exist"):
        open_labelled(tmp_path / "nothing")


def test_sets_without_one_to_train_on_are_refused(tmp_path):
    for name in ("val", "test"):
        write_parquet(tmp_path / f"{name}-0.parquet", [0, 1])
    with pytest.raises(DataError, match="none called train"):
        open_labelled(tmp_path)


def test_names_of_sets_are_no_classes(tmp_path):
    write_folders(tmp_path / "a" / "Training_set", ["x", "y"], 2)
    write_folders(tmp_path / "a" / "Test_set", ["y", "x"], 2)
    sets = open_labelled(tmp_path / "a")
    assert (sets.train.classes, list(sets.tests)) == (("x", "y"), ["Test_set"])
    write_folders(tmp_path / "b" / "Test", ["x", "y"], 2)
    write_folders(tmp_path / "b" / "val", ["x", "y"], 2)
    with pytest.raises(DataError, match="none called train"):
        open_labelled(tmp_path / "b")
