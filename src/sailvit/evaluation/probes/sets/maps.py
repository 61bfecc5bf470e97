"""Images with label maps, as ADE20K has them, or any two folders of the same names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sailvit.core.errors import DataError
from sailvit.core.records import ImageLike
from sailvit.core.seeding import numpy_generator
from sailvit.data.processing.images import image_size
from sailvit.data.processing.label_maps import LabelMap, read_label_map
from sailvit.data.sources.folder import Names
from sailvit.evaluation.probes.sets.class_folder import class_folders, hash_of_files, image_names
from sailvit.evaluation.probes.sets.labelled import Labels, hash_of, is_training

IMAGES, MAPS = ("images", "imgs"), ("annotations", "labels", "masks", "maps")
"""Names of the folders with images, and with their label maps."""
IGNORED = 255
"""The number of pixels that do not count, in most data sets."""
_HELD = 0.2


class MapFolder:
    """The images of a folder that have a label map of the same name in another."""

    def __init__(self, images: Path, maps: Path, limit: int | None = None) -> None:
        self._images, self._maps = images, maps
        # Without endings, as images are often JPEG, whose losses a label map cannot bear.
        by_stem = {str(Path(name).with_suffix("")): name for name in image_names(maps)}
        named = list(image_names(images))
        pairs = [
            (name, found)
            for name in named
            if (found := by_stem.get(str(Path(name).with_suffix("")))) is not None
        ]
        if not pairs:
            raise DataError(
                f"no image of {images} ({len(named)}) has a label map of its name in {maps}"
                f" ({len(by_stem)}); expected a.jpg with a.png, for instance"
            )
        lacking = len(named) - len(pairs)
        self.notes = (
            (f"{images}: {lacking} images have no label map and are left out",) if lacking else ()
        )
        if limit is not None and limit < len(pairs):
            drawn = numpy_generator(0, "probe", "limit").permutation(len(pairs))[:limit]
            pairs = [pairs[place] for place in sorted(drawn.tolist())]
        self._names = Names(name for name, _ in pairs)
        self._map_names = Names(name for _, name in pairs)

    def __len__(self) -> int:
        return len(self._names)

    def image(self, position: int) -> ImageLike:
        """The path of the image at `position`."""
        return self._images / str(self._names[position])

    def labels(self, position: int) -> LabelMap:
        """int32[H, W]: the label map of the image at `position`.

        Raises:
            DataError: it cannot be read, or is of another size than its image.
        """
        path, image = self._maps / str(self._map_names[position]), self.image(position)
        found = read_label_map(path)
        # A map of another size is most often that of another image; scaled, it would be wrong
        # unseen.
        width, height = image_size(image)
        if found.shape != (height, width):
            raise DataError(
                f"{path} is {found.shape[1]} x {found.shape[0]}, but its image has {width} x"
                f" {height} pixels; expected one number per pixel",
                kind="label map",
            )
        return found

    @cached_property
    def fingerprint(self) -> str:
        """Hash of paths and sizes of the images."""
        return hash_of_files(self._images, self._names)


@dataclass(frozen=True)
class MapPart:
    """Some of a set's images with their label maps."""

    whole: MapFolder
    """The set."""
    positions: Labels
    """int64[N]: which images."""
    notes: tuple[str, ...] = ()
    """What should be told of it."""

    @property
    def fingerprint(self) -> str:
        """The whole set's, and which part of it this is."""
        return f"{self.whole.fingerprint}-{hash_of(self.positions)}"

    def __len__(self) -> int:
        return len(self.positions)

    def image(self, position: int) -> ImageLike:
        """The image at `position`."""
        return self.whole.image(int(self.positions[position]))

    def labels(self, position: int) -> LabelMap:
        """int32[H, W]: its label map."""
        return self.whole.labels(int(self.positions[position]))


Mapped = MapFolder | MapPart


@dataclass(frozen=True)
class MapSets:
    """Label maps to train a head on, and sets to test it on."""

    name: str
    """Name of the data."""
    train: Mapped
    """What the head is trained on."""
    tests: dict[str, Mapped]
    """Sets to test on, by name."""
    ignored: tuple[int, ...]
    """Numbers of pixels that do not count."""
    notes: tuple[str, ...] = ()
    """What should be told, a sentence each."""


def has_maps(path: Path) -> bool:
    """Whether there are folders of images and of label maps at `path`, or in `train` there."""
    return _pair(path) is not None or any(
        _pair(path / name) is not None for name in class_folders(path) if is_training(name)
    )


def open_maps(path: Path, *, limit: int | None = None, seed: int = 0) -> MapSets:
    """The label maps at `path`: `images/train` with `labels/train`, or `train/images` with
    `train/labels`, and other sets beside them; or one set, of which a fifth is held out.

    Raises:
        DataError: no image has a map.
    """
    found = dict(_sets(path, limit))
    notes = [note for each in found.values() for note in each.notes]
    train, tests = _divided(path, found, seed)
    if isinstance(train, MapPart):
        notes.append(f"{path.name}: no set is for testing, so a fifth of the images is held out")
    ignored: tuple[int, ...] = (IGNORED,)
    if (path / "annotations" / "training").is_dir():
        # SceneParsing's release: 0 is "other", and its 150 classes count from 1.
        ignored = (0, IGNORED)
        notes.append(f"{path.name}: laid out as ADE20K, so pixels of number 0 do not count")
    return MapSets(path.name, train, tests, ignored, tuple(notes))


def _divided(
    path: Path, found: dict[str, MapFolder], seed: int
) -> tuple[Mapped, dict[str, Mapped]]:
    """The set to train on and those to test on; a part of the one set where there is one alone."""
    train = next((found[name] for name in found if is_training(name)), None)
    tests: dict[str, Mapped] = {name: each for name, each in found.items() if not is_training(name)}
    if train is not None and tests:
        return train, tests
    if len(found) != 1:
        raise DataError(
            f"{path} has label maps of the sets {', '.join(found) or 'none'} and none called train;"
            " expected one to train a head on, or one set alone"
        )
    (whole,) = found.values()
    # Drawn, as names are often sorted by place or day, and the last fifth would be another world.
    order = numpy_generator(seed, "probe", "maps").permutation(len(whole))
    held = max(1, round(_HELD * len(order)))
    parts = [MapPart(whole, np.sort(each)) for each in (order[held:], order[:held])]
    return parts[0], {"held-out": parts[1]}


def _sets(path: Path, limit: int | None) -> Iterator[tuple[str, MapFolder]]:
    pair = _pair(path)
    if pair is None:
        for name in class_folders(path):
            if (inside := _pair(path / name)) is not None:
                yield name, MapFolder(*inside, limit)
        return
    images, maps = pair
    shared = [name for name in class_folders(images) if (maps / name).is_dir()]
    for name in shared:
        yield name, MapFolder(images / name, maps / name, limit)
    if not shared:
        yield path.name, MapFolder(images, maps, limit)


def _pair(path: Path) -> tuple[Path, Path] | None:
    """The folders of images and of maps in a folder; None without both."""
    found = [_first(path, names) for names in (IMAGES, MAPS)]
    return None if None in found else (found[0], found[1])  # type: ignore[return-value]


def _first(path: Path, names: Sequence[str]) -> Path | None:
    return next((path / name for name in names if (path / name).is_dir()), None)
