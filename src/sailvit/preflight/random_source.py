"""An invented source: records of a given size, to measure speed where the real ones are not on
this machine.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from sailvit.core.layout import VisualLayout
from sailvit.core.records import IMAGE_MARK, Record, Turn
from sailvit.core.seeding import numpy_generator

WORDS = (
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "it",
    "was",
    "for",
    "on",
    "are",
    "with",
    "as",
    "at",
    "be",
)
"""Common English words; each is one token of nearly every tokenizer."""
_PICTURES = 6
"""Different images; decoding costs the same for the thousandth time."""
SHOWN = 256
"""Visual tokens of an invented image in native resolution: 448 x 448 px with patches of 14 px and
2 x 2 of them merged."""
_SPREAD = 0.6
"""Standard deviation of the logarithm of text lengths."""


class InventedSource:
    """Conversations about one image each, of one tile up to the layout's most; `words` per
    turn, on average.
    """

    def __init__(
        self, layout: VisualLayout, *, count: int, words: int, kind: str = "chat", seed: int = 0
    ) -> None:
        self._count = count
        self._words = words
        self._kind = kind
        self._seed = seed
        self._pictures = [_picture(layout, grid, seed) for grid in _grids(layout)]

    def __len__(self) -> int:
        """Number of records."""
        return self._count

    def __getitem__(self, position: int) -> Record:
        """The record at `position`, the same at every call."""
        generator = numpy_generator(self._seed, "invented", position)
        question, answer = (_text(self._words, generator) for _ in range(2))
        picture = self._pictures[position % len(self._pictures)]
        turns = (Turn("user", f"{IMAGE_MARK}\n{question}"), Turn("assistant", answer))
        return Record(str(position), turns, (picture,), self._kind)

    @property
    def fingerprint(self) -> str:
        """What determines the records."""
        return f"invented-{self._count}-{self._words}-{self._kind}-{self._seed}"


def _grids(layout: VisualLayout) -> list[tuple[int, int]]:
    """Columns and rows of tiles of each picture: half of the tiles that are allowed on average,
    and in native resolution equally many in other shapes.
    """
    places = range(_PICTURES)
    if layout.native is None:
        # In one row, so that the grid of closest aspect ratio has exactly these tiles.
        return [(1 + round(i * (layout.max_tiles - 1) / (_PICTURES - 1)), 1) for i in places]
    tiles = min(SHOWN, layout.most_tiles)
    # Heights from twice to half of the square's.
    rows = [max(1, round(tiles**0.5 * 2 ** (1 - 2 * i / (_PICTURES - 1)))) for i in places]
    return [(max(1, round(tiles / each)), each) for each in rows]


def _text(words: int, generator: np.random.Generator) -> str:
    """Words; `words` of them on average."""
    # The mean of a log-normal distribution is exp(mu + sigma^2 / 2).
    mean = math.log(max(words, 1)) - _SPREAD**2 / 2
    count = max(1, round(generator.lognormal(mean, _SPREAD)))
    return " ".join(generator.choice(WORDS, size=count))


def _picture(layout: VisualLayout, grid: tuple[int, int], seed: int) -> bytes:
    """A JPEG of so many columns and rows of tiles, with soft shapes and grain like a photograph."""
    columns, rows = grid
    generator = numpy_generator(seed, "picture", columns)
    size = (layout.tile_size * columns, layout.tile_size * rows)
    soft = Image.fromarray(generator.integers(0, 256, (8 * rows, 8 * columns, 3), dtype=np.uint8))
    pixels = np.asarray(soft.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    # Without grain a JPEG is so small that it decodes faster than a photograph would.
    grain = generator.integers(-12, 13, (*pixels.shape[:2], 1), dtype=np.int16)
    file = io.BytesIO()
    Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8)).save(
        file, format="JPEG", quality=90
    )
    return file.getvalue()
