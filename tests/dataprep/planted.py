"""Sources with planted properties."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from sailvit.core.errors import DataError
from sailvit.core.records import Record, Turn

PHOTOGRAPHS = (
    "astronaut",
    "camera",
    "coffee",
    "chelsea",
    "coins",
    "rocket",
    "moon",
    "brick",
    "grass",
    "gravel",
)
WORDS = (
    "red",
    "small",
    "old",
    "bright",
    "quiet",
    "cat",
    "rocket",
    "cup",
    "table",
    "field",
    "coin",
    "page",
    "clock",
    "horse",
    "stands",
    "lies",
    "rests",
    "near",
    "behind",
)


class Planted:
    """Records held in a list; an error in their place is raised when they are read."""

    def __init__(self, records: Sequence[Record | Exception], shards: tuple[int, ...] = ()) -> None:
        self.records = list(records)
        self.fingerprint = f"planted-{len(self.records)}"
        if shards:
            self.shards = shards

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, position: int) -> Record:
        found = self.records[position]
        if isinstance(found, Exception):
            raise found
        return found


def record(name: object, answer: str, images: Sequence = (), kind: str = "caption") -> Record:
    asked = "<image>\n" * len(images) + "Describe."
    return Record(str(name), (Turn("user", asked), Turn("assistant", answer)), tuple(images), kind)


def sentences(count: int, length: int = 12, seed: int = 0) -> list[str]:
    """Different texts of random words."""
    chooser = np.random.default_rng(seed)
    return [" ".join(chooser.choice(WORDS, length)) for _ in range(count)]


def noise(seed: int, width: int = 40, height: int = 30) -> np.ndarray:
    """A smooth random picture: neighbouring cells differ clearly."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC))


def photograph(name: str) -> np.ndarray:
    from skimage import data

    pixels = np.asarray(getattr(data, name)())
    pixels = pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)
    return np.ascontiguousarray(pixels[..., :3])


def jpeg(pixels: np.ndarray, *, quality: int = 90, scale: float = 1.0) -> bytes:
    picture = Image.fromarray(pixels)
    if scale != 1:
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=quality)
    return file.getvalue()


BROKEN = DataError("the record is broken", kind="broken row")
