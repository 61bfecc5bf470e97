"""Tiles as pictures in a page, within a budget of bytes."""

from __future__ import annotations

import base64
import io

import torch
from PIL import Image

from sailvit.data.processing.images import data_uri

_SIDE = 192
"""Longest side of a tile in the page, in pixels: about 8 KB as JPEG."""
_EXACT = 96
"""Tiles up to this many pixels are embedded without loss."""
_BUDGET = 24_000_000
"""Most characters of pictures in a page; browsers open such a page without delay."""


class Album:
    """Makes pictures of tiles until the budget is used up."""

    def __init__(self, budget: int = _BUDGET) -> None:
        self._budget = budget
        self.left_out = 0
        """Tiles that the budget did not allow."""

    def add(self, tile: torch.Tensor) -> str | None:
        """A tile uint8[C, H, W] as a `data:` URI, without loss if it is small; None: the budget
        is used up.
        """
        picture = _picture(tile) if self._budget > 0 else None
        self._budget -= len(picture or "")
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
