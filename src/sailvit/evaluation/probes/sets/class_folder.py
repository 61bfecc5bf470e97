"""Labelled images as a folder of folders, one for each class: torchvision's ImageFolder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np

from sailvit.core.records import ImageLike
from sailvit.core.seeding import numpy_generator
from sailvit.data.file_tree import files_below
from sailvit.data.sources.detect import IMAGES
from sailvit.data.sources.folder import Names
from sailvit.evaluation.probes.sets.labelled import Labels, refuse_few_classes, sorted_names


class _Files:
    """Images that are files below a folder."""

    _folder: Path
    _names: Names

    def __len__(self) -> int:
        return len(self._names)

    def image(self, position: int) -> ImageLike:
        """The path of the image at `position`."""
        return self._folder / str(self._names[position])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of paths and sizes of the images."""
        return hash_of_files(self._folder, self._names)


class ClassFolder(_Files):
    """The images below a folder, labelled by the folder at its top that they lie in.

    Paths stay in memory, some 50 MB for a million images.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = {name: list(image_names(folder / name)) for name in class_folders(folder)}
        empty = sorted(name for name, images in found.items() if not images)
        self.classes = sorted_names([name for name, images in found.items() if images])
        refuse_few_classes(folder, self.classes)
        counts = [len(found[name]) for name in self.classes]
        self.labels: Labels = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
        self._names = Names(f"{name}/{path}" for name in self.classes for path in found[name])
        self.notes = _empty_note(folder, empty)


class ImageFolder(_Files):
    """The images below a folder, without labels, sorted by path; of more than `limit` some that
    are drawn.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self._folder = folder
        names = list(image_names(folder))
        if limit is not None and limit < len(names):
            drawn = numpy_generator(0, "probe", "limit").permutation(len(names))[:limit]
            names = [names[place] for place in sorted(drawn.tolist())]
        self._names = Names(names)


def only_images(folder: Path, limit: int | None = None) -> ImageFolder | None:
    """The images below a folder that holds nothing else; None where it holds other files, which
    may be captions, or no image.
    """
    # Without hidden files: .DS_Store and its like lie in many folders of images.
    if any(Path(name).suffix.lower() not in IMAGES for name in files_below(folder)):
        return None
    found = ImageFolder(folder, limit)
    return found if len(found) else None


def class_folders(folder: Path) -> list[str]:
    """Names of the folders at the top of `folder`, hidden ones left out."""
    with os.scandir(folder) as entries:
        return sorted(each.name for each in entries if each.is_dir() and each.name[0] != ".")


def image_names(folder: Path) -> Iterator[str]:
    """Paths of the image files below `folder`, from there, sorted within each folder."""
    return (name for name in files_below(folder) if Path(name).suffix.lower() in IMAGES)


def hash_of_files(folder: Path, names: Names) -> str:
    """A short hash of the paths below `folder`, and of the sizes and times of these files."""
    digest = blake2b(digest_size=8)
    for name in names:
        # Times too: a picture that was drawn anew may have the size of the old one.
        found = (folder / name).stat()
        digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode(errors="replace"))
    return digest.hexdigest()


def _empty_note(folder: Path, empty: list[str]) -> tuple[str, ...]:
    if not empty:
        return ()
    shown = ", ".join(empty[:5])
    more = ", ..." if len(empty) > 5 else ""
    return (f"{folder}: {len(empty)} folders hold no image and are no classes: {shown}{more}",)
