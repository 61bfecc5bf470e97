"""Labelled images: what every format of them gives, and the classes of one set in another's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sailvit.core.errors import DataError
from sailvit.core.records import ImageLike
from sailvit.core.seeding import numpy_generator

TRAINING = ("train", "training", "train_set", "training_set")
"""Names of the set that heads are trained on, in small letters."""
Labels = NDArray[np.int64]
_SHOWN = 5
"""Most classes that a message names."""


class Images(Protocol):
    """Images by position."""

    @property
    def fingerprint(self) -> str:
        """A short hash of what determines the images and their order."""

    def __len__(self) -> int:
        """Number of images."""

    def image(self, position: int) -> ImageLike:
        """The image at `position`; DataError when it cannot be read."""


class LabelledImages(Images, Protocol):
    """Images of which each belongs to a class."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""

    @property
    def labels(self) -> Labels:
        """int64[N]: the class of every image."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found when the set opened and should be told, a sentence each."""


@dataclass(frozen=True)
class Part:
    """Some of a set's images, as a set."""

    whole: LabelledImages
    """The set."""
    positions: Labels
    """int64[N]: which images, by their positions there."""
    notes: tuple[str, ...] = ()
    """What should be told of it."""

    @property
    def fingerprint(self) -> str:
        """The whole set's, and which part of it this is."""
        return f"{self.whole.fingerprint}-{hash_of(self.positions)}"

    @property
    def classes(self) -> tuple[str, ...]:
        """The whole set's classes."""
        return self.whole.classes

    @property
    def labels(self) -> Labels:
        """int64[N]: the class of every image."""
        return self.whole.labels[self.positions]

    def __len__(self) -> int:
        return len(self.positions)

    def image(self, position: int) -> ImageLike:
        """The image at `position`."""
        return self.whole.image(int(self.positions[position]))


def is_training(name: str) -> bool:
    """Whether a set of this name is for training."""
    return name.lower() in TRAINING


def hash_of(values: Labels) -> str:
    """A short hash of integers."""
    return blake2b(np.ascontiguousarray(values).tobytes(), digest_size=4).hexdigest()


def sorted_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of classes in the order of their numbers: as text, as torchvision's ImageFolder sorts
    folders; numbers by their value.
    """
    if all(re.fullmatch(r"\d{1,9}", name) for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def refuse_few_classes(where: object, classes: Sequence[str]) -> None:
    """DataError unless there are two classes at least."""
    if len(classes) < 2:
        found = f"one class alone ({classes[0]})" if classes else "no class with an image"
        raise DataError(
            f"{where} has {found}; expected two at least, each a folder of images, a number in a"
            " `label` column, or a .cls file beside its image"
        )


def in_classes_of(train: LabelledImages, test: LabelledImages, name: str) -> Labels:
    """int64[N]: labels of the set `test`, which is called `name`, as numbers of `train`'s classes.

    Classes are matched by name, so a test set may hold some of them only, as ImageNet-A and R
    do. Where all names of the test set are numbers that train does not have as names, they are
    places among train's sorted classes, as ImageNet-V2's folders are.

    Raises:
        DataError: the test set has a class that train does not have.
    """
    places = {_plain(each): place for place, each in enumerate(train.classes)}
    held = np.unique(test.labels)
    named = any(_plain(test.classes[label]) in places for label in held)
    # Only where no name fits at all: sets whose classes are numbers are matched by these numbers.
    if not named and _numbers(test.classes) and not _numbers(train.classes):
        places = {str(place): place for place in range(len(train.classes))}
    unknown = [test.classes[label] for label in held if _plain(test.classes[label]) not in places]
    if unknown:
        raise DataError(
            f"set {name} has {len(unknown)} classes that the training set does not have:"
            f" {_few(unknown)}; it has {_few(train.classes)}: name classes alike, or move the set"
            " elsewhere"
        )
    numbers = np.full(len(test.classes), -1, dtype=np.int64)
    for label in held:
        numbers[label] = places[_plain(test.classes[label])]
    return numbers[test.labels]


def split_by_class(
    labels: Labels, share: float, seed: int, *names: str | int
) -> tuple[Labels, Labels]:
    """Positions int64[A] and int64[B], sorted: about `share` of every class in the second, of a
    class with two or more images one at least, and never all.
    """
    rng = numpy_generator(seed, "probe", *names)
    held = []
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        # A class of one image stays where it is trained on: it could not be recognised otherwise.
        count = min(len(own) - 1, max(1, round(share * len(own))))
        held.append(own[:count])
    second = np.sort(np.concatenate(held))
    first = np.setdiff1d(np.arange(len(labels)), second)
    return first, second


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _numbers(names: Sequence[str]) -> bool:
    return all(re.fullmatch(r"\d{1,9}", name) for name in names)


def _plain(name: str) -> str:
    """A number without leading zeros; another name as it is."""
    return str(int(name)) if re.fullmatch(r"\d{1,9}", name) else name
