"""Images with captions, from any source of records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from sailvit.core.bad_records import UNUSABLE
from sailvit.core.errors import DataError
from sailvit.core.records import ImageLike, Record, Source
from sailvit.core.seeding import numpy_generator
from sailvit.data.sources import open_source
from sailvit.data.sources.detect import detect

MOST = 5000
"""Most records that are compared with each other, unless a limit says otherwise: COCO's number of
test images, of which retrieval is reported."""


@dataclass(frozen=True)
class Caption:
    """One caption of one image."""

    position: int
    """The record's position in its source."""
    text: str
    """The caption."""
    image: str
    """What is the same for records of one image."""


@dataclass(frozen=True)
class CaptionSet:
    """Images with captions."""

    name: str
    """Name of the data."""
    source: Source
    """The records."""
    captions: tuple[Caption, ...]
    """Captions of one image each."""
    notes: tuple[str, ...] = ()
    """What should be told, a sentence each."""

    @property
    def fingerprint(self) -> str:
        """The source's."""
        return self.source.fingerprint

    def __len__(self) -> int:
        return len(self.captions)

    def image(self, position: int) -> ImageLike:
        """The image of the caption at `position`."""
        return self.source[self.captions[position].position].images[0]


def open_captions(path: Path, *, limit: int | None = None, seed: int = 0) -> CaptionSet:
    """The captions at `path`, in any format that `sailvit data` detects.

    Raises:
        DataError: there are none, or the format is not clear.
    """
    return caption_set(path.name, open_source(path.name, detect(path), Path()), limit, seed)


def caption_set(name: str, source: Source, limit: int | None = None, seed: int = 0) -> CaptionSet:
    """The captions of a source: its records with one image and one answer.

    Raises:
        DataError: fewer than two records are such.
    """
    order = numpy_generator(seed, "probe", "captions").permutation(len(source))
    # Sorted again, as sources on a disk are read in their order.
    chosen = np.sort(order[: limit or MOST])
    found = tuple(_captions(source, chosen.tolist()))
    if len(found) < 2:
        raise DataError(
            f"{name} has {len(found)} captions of single images; expected records with one image"
            " and one answer, or images with captions beside them"
        )
    left = len(chosen) - len(found)
    notes = [f"{name}: {left} records are no caption of one image and are left out"] if left else []
    if len(source) > len(chosen):
        notes.append(f"{name}: {len(chosen)} of {len(source)} records are drawn")
    return CaptionSet(name, source, found, tuple(notes))


def _captions(source: Source, positions: list[int]) -> Iterator[Caption]:
    for position in positions:
        try:
            record = source[position]
        except UNUSABLE:
            continue
        answers = [turn.text for turn in record.turns if turn.role == "assistant"]
        # With several answers it is not clear which of them tells the image from others.
        if len(record.images) == 1 and len(answers) == 1:
            yield Caption(position, answers[0], _identity(record))


def _identity(record: Record) -> str:
    image = record.images[0]
    if isinstance(image, Path):
        return str(image)
    if isinstance(image, bytes):
        return blake2b(image, digest_size=16).hexdigest()
    # Drawn images are each their own.
    return f"record {record.id}"
