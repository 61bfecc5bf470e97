"""Tiles as pictures in a page, within a budget."""

from __future__ import annotations

import base64
import io

import torch
from PIL import Image

from sailvit.data.processing.images import data_uri

_SIDE = 192
"""Longest side of a tile in the page, in pixels; as JPEG that is some 8 KB."""
_EXACT = 96
"""Tiles up to this size are embedded as they are."""
_BUDGET = 24_000_000
"""Most characters of pictures in a page; browsers open that without pause."""


class Album:
    """Makes pictures of tiles until the budget is used up."""

    def __init__(self, budget: int = _BUDGET) -> None:
        self._room = budget
        self.left_out = 0
        """Tiles that had no room."""

    def add(self, tile: torch.Tensor) -> str | None:
        """A tile uint8[C, H, W] as a `data:` URI, exact when it is small; None when there is no
        room left.
        """
        picture = _picture(tile) if self._room > 0 else None
        self._room -= len(picture or "")
        self.left_out += picture is None
        return picture


def _picture(tile: torch.Tensor) -> str:
    pixels = tile.permute(1, 2, 0).numpy()
    if max(pixels.shape[:2]) <= _EXACT:
        return data_uri(pixels)
    picture = Image.fromarray(pixels)
    picture.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
