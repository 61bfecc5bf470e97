"""What the data side must know about the tower: how an image becomes tiles and tiles become
tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

PLACEHOLDER = "<|image_pad|>"
"""The token that stands for an image where a recipe names no other."""

_ROUNDING = 1e-9
"""Largest error of a side in tiles: without it 128 tiles, computed as 127.999..., would be 127."""


@dataclass(frozen=True)
class GridLimits:
    """How many tiles an image's grid may have in native resolution."""

    least: int
    """Fewest tiles."""
    most: int
    """Most tiles."""
    square: int
    """Tiles per side of the tower's own square, at which models are compared."""

    def grid(self, width: int, height: int, tile: int) -> tuple[int, int]:
        """Columns and rows of tiles of `tile` px for an image: each side is rounded to a multiple
        of a tile, and is one tile at least.

        Grids outside the limits are scaled with the aspect ratio kept: up, sides rounded up, to
        `least` tiles, or down, sides rounded down, to `most` (the rule of Qwen2-VL's
        `smart_resize`). A strip that is thinner than a tile even then is cut off at `most`.
        """
        columns, rows = (max(1, round(side / tile)) for side in (width, height))
        area = width * height / tile**2
        if columns * rows < self.least:
            scale = math.sqrt(self.least / area)
            columns, rows = (math.ceil(side / tile * scale - _ROUNDING) for side in (width, height))
        if columns * rows > self.most:
            scale = math.sqrt(self.most / area)
            columns, rows = (
                max(1, math.floor(side / tile * scale + _ROUNDING)) for side in (width, height)
            )
            # A strip of one row may still be longer than all tiles that are allowed.
            columns = min(columns, self.most)
            rows = min(rows, self.most // columns)
        return columns, rows


@dataclass(frozen=True)
class VisualLayout:
    """The contract between images and the placeholder runs that stand for them in text."""

    tile_size: int
    """Height and width of a tile, in pixels. In native resolution a tile is what becomes one
    visual token: the patches that the connector merges."""
    tokens_per_tile: int
    """Visual tokens of one tile after merging, so the length of its placeholder run."""
    placeholder_id: int
    """Token id that visual features replace."""
    placeholder: str
    """The same token as text."""
    max_tiles: int = 1
    """Most crops of one image, thumbnail not counted; 1 means every image is one resized
    tile."""
    thumbnail: bool = True
    """Whether an image cut into several tiles also gets one tile of the whole."""
    wrap: tuple[str, str] | None = None
    """Tokens before and after an image's placeholders; None: none."""
    newline: bool = False
    """Whether a line break parts an image from the text or image behind it."""
    native: GridLimits | None = None
    """Limits of the one grid per image that keeps its aspect ratio; None: images are resized to
    tiles of the tower's own size."""
    second_grid: bool = False
    """Whether an image is cut twice, the second time by a grid that is no part of the first, as
    SAIL-VL does where it is evaluated."""

    @property
    def edge(self) -> int:
        """Tokens of the wrap on either side of an image's placeholders."""
        return 0 if self.wrap is None else 1

    @property
    def most_tiles(self) -> int:
        """Most tiles of one image, its thumbnail included."""
        if self.native is not None:
            return self.native.most
        grids = 2 if self.second_grid and self.max_tiles > 1 else 1
        return grids * self.max_tiles + int(self.thumbnail and self.max_tiles > 1)

    @property
    def squared(self) -> VisualLayout:
        """The layout in which every image is one tile of the tower's own size, or about that in
        native resolution.
        """
        if self.native is None:
            return replace(self, max_tiles=1)
        side = self.native.square
        return replace(self, tile_size=self.tile_size * side, tokens_per_tile=side**2, native=None)
