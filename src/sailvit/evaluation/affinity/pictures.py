"""The pictures that affinity is measured on, with their captions where there are any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sailvit.core.errors import DataError, one_line
from sailvit.core.records import IMAGE_MARK, ImageLike, Record, Source, Turn
from sailvit.core.seeding import numpy_generator
from sailvit.data.file_tree import files_below
from sailvit.data.processing.decoding import Pixels
from sailvit.data.processing.images import load_image
from sailvit.data.sources import open_source
from sailvit.data.sources.detect import IMAGES, detect

MOST_FILES = 1_000_000
"""Most files of a folder that are listed."""


@dataclass(frozen=True)
class Picture:
    """One picture."""

    name: str
    """Its path below the folder, or its record's id."""
    image: ImageLike
    """The image; it is decoded whenever it is used, as some hundred photographs take gigabytes."""
    caption: str | None = None
    """What is said of it; None: nothing."""

    @property
    def pixels(self) -> Pixels:
        """uint8[H, W, 3]."""
        return load_image(self.image)

    def record(self, words: str = "shown") -> Record:
        """The picture as a record: a question about it, answered by the caption."""
        # A caption that speaks of the mark itself would ask for a second image.
        said = (self.caption or words).replace(IMAGE_MARK, "image")
        turns = (Turn("user", IMAGE_MARK), Turn("assistant", said))
        return Record(self.name, turns, (self.image,), "caption")


@dataclass
class Pictures:
    """Pictures of a folder or of a source, in a seeded random order."""

    path: Path
    """Where they are."""
    found: Sequence[Path] | Source
    """Image files, or records with captions."""
    seed: int
    """Seed of the order."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Why pictures were left out, by name."""

    @property
    def captioned(self) -> bool:
        """Whether captions are there."""
        return not isinstance(self.found, list)

    def draw(self, count: int) -> list[Picture]:
        """At most `count` different pictures, always the same for a seed; fewer where there are
        fewer, and at least one.

        Raises:
            DataError: none can be read.
        """
        drawn: list[Picture] = []
        for picture in self._in_order():
            drawn.append(picture)
            if len(drawn) == count:
                break
        if not drawn:
            told = next(iter(self.skipped.values()), "no record has one image")
            raise DataError(f"{self.path} has no picture that can be read ({told}); give another")
        return drawn

    def _in_order(self) -> Iterator[Picture]:
        order = numpy_generator(self.seed, "affinity", "pictures").permutation(len(self.found))
        for position in order.tolist():
            name = f"at {position}"
            try:
                name, image, caption = self._at(position)
                if image is not None:
                    # Decoded here once and let go: what cannot be read must not be counted as
                    # drawn.
                    load_image(image)
                    yield Picture(name, image, caption)
            except DataError as error:
                self.skipped[name] = one_line(error)

    def _at(self, position: int) -> tuple[str, ImageLike | None, str | None]:
        item = self.found[position]
        if isinstance(item, Path):
            return item.relative_to(self.path).as_posix(), item, None
        answers = [turn.text for turn in item.turns if turn.role == "assistant"]
        # Of several images nobody knows which one the answer is about.
        single = len(item.images) == 1 and answers
        return item.id, item.images[0] if single else None, answers[0] if answers else None


def open_pictures(path: Path, *, seed: int = 0) -> Pictures:
    """The pictures at `path`: data in a format that the other commands read, whose first answers
    are captions, or a folder of image files without any.

    Raises:
        DataError: there is neither.
    """
    try:
        return Pictures(path, open_source("images", detect(path), Path()), seed)
    except DataError as error:
        files = _image_files(path) if path.is_dir() else []
        if not files:
            raise DataError(
                f"{path} holds no pictures ({one_line(error)}); give a folder with image files"
                f" ({', '.join(sorted(IMAGES))}), or data with pictures and captions"
            ) from error
        return Pictures(path, files, seed)


def _image_files(folder: Path) -> list[Path]:
    found = []
    for path in map(folder.joinpath, files_below(folder, hidden=True)):
        if path.suffix.lower() in IMAGES and path.is_file():
            found.append(path)
        # Refused while it is listed: the names of a whole disk would fill the memory first.
        if len(found) > MOST_FILES:
            raise DataError(
                f"{folder} holds more than {MOST_FILES:,} pictures; name a folder inside it"
            )
    return sorted(found)


def crop_pair(
    pixels: Pixels, rng: np.random.Generator
) -> tuple[Pixels, tuple[float, float, float, float]]:
    """A random part of a picture, 60 to 80 % of each side, and its left, top, width and height
    as shares.
    """
    height, width = pixels.shape[:2]
    share = rng.uniform(0.6, 0.8)
    across, down = max(1, int(width * share)), max(1, int(height * share))
    left, top = (int(rng.integers(0, rest + 1)) for rest in (width - across, height - down))
    part = np.ascontiguousarray(pixels[top : top + down, left : left + across])
    return part, (left / width, top / height, across / width, down / height)
