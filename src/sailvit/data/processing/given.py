"""Images as callers have them in Python, as images that a record may hold."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sailvit.core.errors import DataError
from sailvit.core.records import ImageLike


def as_image(given: Any) -> ImageLike:
    """A path, encoded bytes, a PIL image, or pixels uint8[H, W, 3] or uint8[H, W] as an image
    of a record.

    Raises:
        DataError: it is something else.
    """
    if isinstance(given, str | Path):
        return Path(given)
    if isinstance(given, bytes):
        return given
    if isinstance(given, Image.Image):
        return _encoded(given)
    if hasattr(given, "__array__"):
        return _pixels(np.asarray(given))
    raise DataError(
        f"found {type(given).__name__} for an image; expected a path, encoded bytes, a PIL"
        " image, or pixels uint8[H, W, 3]",
        kind="image",
    )


def _encoded(image: Image.Image) -> bytes:
    """The image as an encoded file, so that the rules for files read its depth, transparency
    and rotation.
    """
    file = io.BytesIO()
    try:
        # TIFF holds the modes of Pillow that PNG cannot.
        kind = "PNG" if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "TIFF"
        image.save(file, format=kind, exif=image.getexif().tobytes())
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"a PIL image of mode {image.mode} cannot be read ({error}); convert it to RGB",
            kind="image",
        ) from error
    return file.getvalue()


def _pixels(array: np.ndarray) -> np.ndarray:
    """The pixels as uint8[H, W, 3]; grey is repeated in three channels."""
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise DataError(
            f"found pixels {array.dtype}{list(array.shape)}; expected uint8[H, W, 3], channels"
            " last, 0 to 255",
            kind="image",
        )
    return np.ascontiguousarray(array)
