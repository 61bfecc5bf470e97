"""Draws scenes as pictures of 64x64 pixels, and strips as large as they need, in cells of 16 or
32 pixels: multiples of a patch and of a visual token, so that neither spans two cells.

Masks of shapes and glyphs are cached and pasted: no picture takes more than a tenth of a
millisecond.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from sailvit.synthetic.world.glyphs import glyph
from sailvit.synthetic.world.scenes import (
    BAR_LEVELS,
    CROWD_SIDE,
    Chart,
    Crowd,
    Objects,
    Scene,
    Strip,
    Writing,
)

SIDE = 64
"""Height and width of a picture, in pixels."""
CELL = SIDE // 2
"""Height and width of a cell of the 2x2 grid, in pixels."""
_RGB = {
    "red": (222, 46, 48),
    "green": (44, 168, 72),
    "blue": (46, 92, 224),
    "yellow": (240, 198, 36),
    "purple": (160, 62, 196),
    "black": (34, 34, 38),
}
_SIZE = {"small": 14, "large": 26}
_CROWD_SIZE = 12
_COLOUR_JITTER = 14
_BASELINE = 62
_LEVEL = 12
_BAR_SLOT, _BAR_WIDTH = 16, 12
_GLYPH_SCALE = 4
_STRIP_CELL, _STRIP_SCALE = 16, 2
MAP_CLASSES = ("background", "circle", "square", "triangle", "cross", "bar", "writing")
"""What a pixel of a picture may show, by its number in a label map."""
_COVERED = 0.5
"""Share of a pixel from which on it belongs to what covers it."""


def size_of(scene: Scene) -> tuple[int, int]:
    """Width and height of the picture of `scene`, in pixels."""
    if isinstance(scene, Strip):
        return _STRIP_CELL * scene.columns, _STRIP_CELL * scene.rows
    return SIDE, SIDE


def draw(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """uint8[H, W, 3]: the picture of `scene`. `rng` decides only the brightness of the
    background, small tints, and shifts by up to two pixels.
    """
    return draw_labelled(scene, rng)[0]


def draw_labelled(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The picture of `scene` as `draw` gives it, and uint8[H, W]: what every pixel shows, by
    its place in `MAP_CLASSES`.
    """
    # In float32: soft edges mix colours, which are rounded once, at the end.
    width, height = size_of(scene)
    canvas = np.full((height, width, 3), rng.integers(226, 250), dtype=np.float32)
    labels = np.zeros((height, width), dtype=np.uint8)
    if isinstance(scene, Objects | Crowd):
        _draw_things(canvas, labels, scene, rng)
    elif isinstance(scene, Writing):
        _draw_writing(canvas, labels, scene, rng)
    elif isinstance(scene, Strip):
        _draw_strip(canvas, labels, scene, rng)
    elif isinstance(scene, Chart):
        _draw_chart(canvas, labels, scene, rng)
    else:
        raise TypeError(f"a {type(scene).__name__} cannot be drawn; give its task `picture=False`")
    return canvas.astype(np.uint8), labels


def _draw_things(
    canvas: np.ndarray, labels: np.ndarray, scene: Objects | Crowd, rng: np.random.Generator
) -> None:
    side = CROWD_SIDE if isinstance(scene, Crowd) else 2
    tints = _tints(rng, len(scene.things))
    moves = rng.integers(-2, 3, size=(len(scene.things), 2)).tolist()
    for thing, tint, move in zip(scene.things, tints, moves, strict=True):
        mask = outline(thing.shape, _CROWD_SIZE if side == CROWD_SIDE else _SIZE[thing.size])
        row, column = divmod(thing.cell, side)
        free = SIDE // side - len(mask)
        top, left = (
            SIDE // side * cell + free // 2 + shift
            for cell, shift in zip((row, column), move, strict=True)
        )
        _paste(canvas, mask, (top, left), _RGB[thing.colour] + tint)
        _label(labels, mask, (top, left), thing.shape)


def _draw_writing(
    canvas: np.ndarray, labels: np.ndarray, scene: Writing, rng: np.random.Generator
) -> None:
    # Two glyphs per line, each in a cell of 32 pixels. Three glyphs in one line would lie
    # differently on the visual tokens of 16 pixels: an attention readout trained on 10,000
    # pictures reads 19 % of the writings in that form, and 93 % in this one.
    ink = _RGB[scene.ink] + _tints(rng, 1)[0]
    down, right = rng.integers(-2, 3, size=2).tolist()
    for cell, character in enumerate(scene.glyphs):
        mask = glyph(character, _GLYPH_SCALE)
        row, column = divmod(cell, 2)
        top, left = (
            CELL * at + (CELL - length) // 2
            for at, length in zip((row, column), mask.shape, strict=True)
        )
        _paste(canvas, mask, (top + down, left + right), ink)
        _label(labels, mask, (top + down, left + right), "writing")


def _draw_strip(
    canvas: np.ndarray, labels: np.ndarray, scene: Strip, rng: np.random.Generator
) -> None:
    # A cell is one visual token of 2 x 2 patches, and a glyph stays within its cell.
    ink = _RGB[scene.ink] + _tints(rng, 1)[0]
    down, right = int(rng.integers(-1, 2)), int(rng.integers(-2, 3))
    for cell, character in enumerate(scene.glyphs):
        mask = glyph(character, _STRIP_SCALE)
        top, left = (
            _STRIP_CELL * at + (_STRIP_CELL - length) // 2
            for at, length in zip(divmod(cell, scene.columns), mask.shape, strict=True)
        )
        _paste(canvas, mask, (top + down, left + right), ink)
        _label(labels, mask, (top + down, left + right), "writing")


def _draw_chart(
    canvas: np.ndarray, labels: np.ndarray, scene: Chart, rng: np.random.Generator
) -> None:
    for level in range(1, BAR_LEVELS + 1):
        # A line for each height, as no number is printed that could be read instead.
        canvas[_BASELINE - _LEVEL * level] -= 30
    canvas[_BASELINE:] = 90
    start = (SIDE - _BAR_SLOT * len(scene.bars)) // 2 + (_BAR_SLOT - _BAR_WIDTH) // 2
    for index, ((colour, height), tint) in enumerate(
        zip(scene.bars, _tints(rng, len(scene.bars)), strict=True)
    ):
        left = start + _BAR_SLOT * index
        bar = np.s_[_BASELINE - _LEVEL * height : _BASELINE, left : left + _BAR_WIDTH]
        canvas[bar] = _RGB[colour] + tint
        labels[bar] = MAP_CLASSES.index("bar")


def _tints(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(-_COLOUR_JITTER, _COLOUR_JITTER + 1, size=(count, 3))


def _paste(
    canvas: np.ndarray, mask: np.ndarray, corner: tuple[int, int], colour: np.ndarray
) -> None:
    top, left = corner
    region = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
    region += mask[:, :, None] * (colour - region)


def _label(labels: np.ndarray, mask: np.ndarray, corner: tuple[int, int], name: str) -> None:
    top, left = corner
    region = labels[top : top + mask.shape[0], left : left + mask.shape[1]]
    region[mask >= _COVERED] = MAP_CLASSES.index(name)


@cache
def outline(shape: str, size: int) -> np.ndarray:
    """float32[size, size]: the share of each pixel that `shape` covers."""
    # 16 samples per pixel, averaged: smooth edges.
    fine = 4
    axis = (np.arange(size * fine) + 0.5) / (size * fine) * 2 - 1
    y, x = axis[:, None], axis[None, :]
    inside: np.ndarray = {
        "circle": x**2 + y**2 < 1,
        "square": np.maximum(abs(x), abs(y)) < 0.85,
        "triangle": abs(x) < (y + 1) / 2,
        "cross": (np.minimum(abs(x), abs(y)) < 0.34) & (np.maximum(abs(x), abs(y)) < 1),
    }[shape]
    cover: np.ndarray = inside.reshape(size, fine, size, fine).mean(axis=(1, 3), dtype=np.float32)
    return cover
