"""The sets at a path: what kind of data they are, and which of them is for training."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sailvit.core.errors import DataError
from sailvit.evaluation.probes.sets.class_folder import ClassFolder, class_folders, image_names
from sailvit.evaluation.probes.sets.labelled import (
    LabelledImages,
    Labels,
    Part,
    in_classes_of,
    is_training,
    split_by_class,
)
from sailvit.evaluation.probes.sets.parquet import LabelledRows, has_labels
from sailvit.evaluation.probes.sets.tars import LabelledTars

_SPLIT = re.compile(r"(train|training|validation|val|test)[-_.]")
"""How names of Parquet files and tars begin that hold one set of several."""
_TESTING = ("val", "valid", "validation", "test", "testing", "test_set", "dev", "eval")
"""Names of sets, which are no classes."""
_HELD = 0.2
"""Share of every class that is tested on where no set is for testing."""


@dataclass(frozen=True)
class LabelledSets:
    """Labelled images to train heads on, and sets to test them on."""

    name: str
    """Name of the data."""
    train: LabelledImages
    """What heads are trained on."""
    tests: dict[str, LabelledImages]
    """Sets to test on, by name."""
    answers: dict[str, Labels]
    """int64[N] of every test set: labels as numbers of the training set's classes."""
    notes: tuple[str, ...] = field(default=())
    """What should be told, a sentence each."""


def open_labelled(path: Path, *, limit: int | None = None, seed: int = 0) -> LabelledSets:
    """The labelled sets at `path`: a folder with `train` and other sets in it, one set, of which a
    fifth is held out, or a Parquet file or tar.

    `limit`: most images of every set, drawn anew for every class.

    Raises:
        DataError: there is no such data, or a test set has classes that training does not have.
    """
    found = dict(_sets(path))
    notes = [note for each in found.values() for note in each.notes]
    train, tests = _divided(path, found, seed)
    if any(isinstance(each, Part) for each in tests.values()):
        notes.append(f"{path.name}: no set is for testing, so a fifth of every class is held out")
    if limit is not None:
        # After a fifth was held out, so that the limit is that of each set and not of both
        # together.
        train = _limited(train, limit, seed)
        tests = {name: _limited(each, limit, seed) for name, each in tests.items()}
    answers = {name: in_classes_of(train, each, name) for name, each in tests.items()}
    return LabelledSets(path.name or str(path), train, tests, answers, tuple(notes))


def _divided(
    path: Path, found: dict[str, LabelledImages], seed: int
) -> tuple[LabelledImages, dict[str, LabelledImages]]:
    """The set to train on and those to test on; a part of the one set where there is one alone."""
    train = next((found[name] for name in found if is_training(name)), None)
    tests = {name: each for name, each in found.items() if not is_training(name)}
    if train is not None and tests:
        return train, tests
    if len(found) != 1:
        raise DataError(
            f"{path} has the sets {', '.join(found) or 'none'} and none called train; expected one"
            " to train heads on, or one set alone"
        )
    (whole,) = found.values()
    kept, held = split_by_class(whole.labels, _HELD, seed, "held-out")
    return Part(whole, kept), {"held-out": Part(whole, held)}


def is_labelled(path: Path) -> bool:
    """Whether there are labelled sets at `path`, by the names of its files alone."""
    if path.is_file():
        return path.suffix == ".tar" or (path.suffix == ".parquet" and has_labels(path))
    if not path.is_dir():
        return False
    if files := _shards(path):
        return any(_is_labelled_file(each) for each in files)
    inside = class_folders(path)
    return any(_shards(path / name) for name in inside) or any(
        next(image_names(path / name), None) is not None for name in inside
    )


def _sets(path: Path) -> Iterator[tuple[str, LabelledImages]]:
    """Names and sets at a path."""
    if not path.exists():
        raise DataError(f"{path} does not exist; name a folder of images", kind="missing file")
    if path.is_file():
        yield path.stem, _shard_set([path])
        return
    shards = _shards(path) or _shards(path / "data")
    if shards:
        yield from _split_shards(path.name, shards)
        return
    inside = class_folders(path)
    if any(is_training(name) for name in inside):
        for name in inside:
            yield name, _folder_set(path / name)
        return
    _refuse_only_tests(path, inside)
    yield path.name, _folder_set(path)


def _refuse_only_tests(path: Path, inside: Sequence[str]) -> None:
    """Refuse sets to test on that stand without one to train on: they are no classes."""
    if inside and all(name.lower() in _TESTING for name in inside):
        raise DataError(
            f"{path} has the sets {', '.join(inside)} and none called train; expected one to train"
            " heads on"
        )


def _folder_set(folder: Path) -> LabelledImages:
    shards = _shards(folder)
    return _shard_set(shards) if shards else ClassFolder(folder)


def _split_shards(name: str, shards: Sequence[Path]) -> Iterator[tuple[str, LabelledImages]]:
    """Sets of Parquet files or tars in one folder, told apart by how their names begin."""
    splits: dict[str, list[Path]] = {}
    for path in shards:
        begun = _SPLIT.match(path.name)
        splits.setdefault(begun[1] if begun else name, []).append(path)
    for split, paths in splits.items():
        yield split, _shard_set(paths)


def _shard_set(paths: Sequence[Path]) -> LabelledImages:
    return LabelledTars(paths) if paths[0].suffix == ".tar" else LabelledRows(paths)


def _shards(folder: Path) -> list[Path]:
    """The Parquet files of a folder, else its tars."""
    if not folder.is_dir():
        return []
    return sorted(folder.glob("*.parquet")) or sorted(folder.glob("*.tar"))


def _is_labelled_file(path: Path) -> bool:
    return path.suffix == ".tar" or has_labels(path)


def _limited(images: LabelledImages, limit: int, seed: int) -> LabelledImages:
    """At most `limit` images, as many of each class as its share gives."""
    if limit >= len(images):
        return images
    positions, _ = split_by_class(images.labels, 1 - limit / len(images), seed, "limit")
    return Part(images, np.asarray(positions))
