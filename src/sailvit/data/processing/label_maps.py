"""Label maps: pictures whose pixels are numbers of classes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sailvit.core.errors import DataError
from sailvit.data.processing.images import MAX_PIXELS

LabelMap = NDArray[np.int32]
"""int32[H, W]: the number of what every pixel shows."""

_MODES = ("L", "P", "I", "I;16", "I;16B", "1")
"""Pillow's modes with one number per pixel; of a palette the numbers count, not the colours."""
_LOSSY = ("JPEG", "MPO")
"""Pillow's formats of one number per pixel that change numbers."""


def read_label_map(path: Path, *, max_pixels: int = MAX_PIXELS) -> LabelMap:
    """int32[H, W]: the numbers in a label map.

    Raises:
        DataError: it cannot be read, is too large, holds colours, or is a JPEG.
    """
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > max_pixels:
                raise DataError(
                    f"{path} has {opened.width} x {opened.height} pixels; at most {max_pixels:,}"
                    " are decoded",
                    kind="image size",
                )
            if opened.mode not in _MODES:
                raise DataError(
                    f"{path} is of mode {opened.mode}; expected one number per pixel, as grey or"
                    " palette PNG: convert its colours to numbers of classes",
                    kind="label map",
                )
            if opened.format in _LOSSY:
                raise DataError(
                    f"{path} is a {opened.format}, whose losses make other numbers of those at"
                    " edges; expected a format without loss: fetch the original maps as PNG",
                    kind="label map",
                )
            return np.array(opened, dtype=np.int32)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is no readable label map ({error})", kind="label map") from error


def encoded_label_map(labels: NDArray[np.uint8]) -> bytes:
    """A label map uint8[H, W] as a grey PNG."""
    file = io.BytesIO()
    Image.fromarray(labels).save(file, format="PNG")
    return file.getvalue()
