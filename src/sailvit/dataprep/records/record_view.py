"""A record with its computed properties."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sailvit.core.errors import DataError
from sailvit.core.records import IMAGE_MARK, ImageLike, Record
from sailvit.data.processing.images import image_size, load_image
from sailvit.dataprep.records.hashes import Hash, content_hash, picture_hash
from sailvit.dataprep.records.words import text_bytes

DAMAGE = (DataError, OSError, ValueError, TypeError)
"""What reading a bad record may raise."""


class Size(NamedTuple):
    """Size of an upright image, in pixels."""

    width: int
    """Horizontal."""
    height: int
    """Vertical."""

    def __str__(self) -> str:
        return f"{self.width} x {self.height} px"


@dataclass(frozen=True)
class RecordView:
    """A record and its properties; each is computed once, when it is first used."""

    position: int
    """Its position in its source."""
    record: Record
    """The record itself."""

    @cached_property
    def answers(self) -> str:
        """The text that a model would learn to write: the caption, or all answers."""
        return "\n".join(
            turn.text.strip() for turn in self.record.turns if turn.role == "assistant"
        )

    @cached_property
    def text(self) -> str:
        """The text of all turns, without image marks."""
        return "\n".join(turn.text.replace(IMAGE_MARK, "").strip() for turn in self.record.turns)

    @cached_property
    def sizes(self) -> tuple[Size, ...]:
        """The size of every image, from its header."""
        return tuple(Size(*image_size(image)) for image in self.record.images)

    @cached_property
    def encoded(self) -> tuple[bytes, ...]:
        """The bytes of every image as they are stored."""
        return tuple(_stored(image) for image in self.record.images)

    @cached_property
    def pixels(self) -> tuple[NDArray[np.uint8], ...]:
        """The pixels of every image, uint8[H, W, 3]."""
        return tuple(load_image(image) for image in self.record.images)

    @cached_property
    def text_hash(self) -> Hash:
        """Hash of all turns with their roles; runs of blanks count as one blank."""
        return content_hash(
            *(text_bytes(f"{t.role} {' '.join(t.text.split())}") for t in self.record.turns)
        )

    @cached_property
    def image_hashes(self) -> tuple[Hash, ...]:
        """Hash of every image's stored bytes."""
        return tuple(content_hash(content) for content in self.encoded)

    @cached_property
    def record_hash(self) -> Hash:
        """Hash of all images and all turns."""
        return content_hash(*self.encoded, *map(str.encode, map(str, self.text_hash)))

    @cached_property
    def picture_hashes(self) -> tuple[Hash, ...]:
        """Hash of how every image looks; for an image of a single colour, of its bytes."""
        return tuple(
            picture_hash(pixels) or content_hash(content)
            for pixels, content in zip(self.pixels, self.encoded, strict=True)
        )


def _stored(image: ImageLike) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, Path):
        try:
            return image.read_bytes()
        except OSError as error:
            raise DataError(
                f"{image} cannot be read ({error}); check the source's `images`",
                kind="missing file",
            ) from error
    pixels = image if isinstance(image, np.ndarray) else image.pixels()
    # With the shape, as a wide and a high picture may have the same bytes.
    return str(pixels.shape).encode() + pixels.tobytes()
