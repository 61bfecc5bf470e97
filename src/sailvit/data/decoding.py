"""Decoding: image files and bytes as upright RGB. The one place that knows file types, colour modes and rotation."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from sailvit.core.errors import DataError

Pixels = NDArray[np.uint8]
"""Decoded RGB, uint8[H, W, 3]."""

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
"""What Pillow's decoders raise on damaged files."""
_JPEG = ("JPEG", "MPO")
"""What Pillow calls JPEG files; MPO is one with more pictures behind the first."""
_PNG_EXIF = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
"""Where a PNG may keep its rotation, behind the pixels too."""
_TURNED = {5, 6, 7, 8}
"""EXIF orientations that exchange width and height."""


def decode(image: Path | bytes, max_pixels: int) -> Pixels:
    """Upright RGB uint8[H, W, 3]; DataError when the image is damaged or larger than `max_pixels`."""
    with _open(image, max_pixels) as opened:
        turn = _orientation(opened)
        try:
            pixels = _jpeg(opened)
            return _upright(np.array(_rgb(opened)) if pixels is None else pixels, turn)
        except _DAMAGE as error:
            raise DataError(
                f"{_name(image)} is damaged ({error}); expected a complete image: fetch it again or remove its record",
                kind="image",
            ) from error


def decoded_size(image: Path | bytes, max_pixels: int) -> tuple[int, int]:
    """Width and height of the upright image, without decoding it."""
    with _open(image, max_pixels) as opened:
        width, height = opened.size
        return (height, width) if _orientation(opened) in _TURNED else (width, height)


@cache
def jpeg_decoder() -> Any:
    """The decoder of simplejpeg, half as long as Pillow for the same bits; none when it is not installed."""
    try:
        return import_module("simplejpeg").decode_jpeg
    except ImportError:
        return None


def _open(image: Path | bytes, max_pixels: int) -> ImageFile:
    try:
        opened = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
    except FileNotFoundError as error:
        raise DataError(
            f"{image!s} does not exist; check the source's `images` folder or remove the record",
            kind="missing file",
        ) from error
    except PermissionError as error:
        raise DataError(
            f"{image!s} may not be read ({error.strerror}); change its mode", kind="permission"
        ) from error
    except (Image.DecompressionBombError, *_DAMAGE) as error:
        # Pillow's own words for it hold an address in memory, other ones in every run.
        found = "no known kind" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(
            f"{_name(image)} cannot be opened ({found}); expected an image file of a kind that Pillow reads",
            kind="image size" if isinstance(error, Image.DecompressionBombError) else "image",
        ) from error
    pixels = opened.width * opened.height
    if not 0 < pixels <= max_pixels:
        opened.close()
        raise DataError(
            f"{_name(image)} has {opened.width} x {opened.height} pixels; expected one at least, and at most"
            f" {max_pixels:,} are decoded: scale it down or remove its record",
            kind="image size",
        )
    return opened


def _jpeg(opened: ImageFile) -> Pixels | None:
    """A JPEG's pixels by the fast decoder; none where Pillow has to do it.

    That is for CMYK, whose conversion is Pillow's, and where simplejpeg refuses what libjpeg only warns of: then both
    installations accept the same files.
    """
    fast = jpeg_decoder()
    if fast is None or opened.format not in _JPEG or opened.mode not in ("RGB", "L"):
        return None
    file = opened.fp
    assert file is not None
    file.seek(0)
    try:
        pixels: Pixels = fast(file.read(), colorspace="RGB")
    except ValueError:
        return None
    return pixels


def _orientation(opened: ImageFile) -> int:
    """The EXIF orientation, 1 when there is none or it cannot be read."""
    if opened.format == "PNG" and "exif" not in opened.info and not _png_exif(opened):
        return 1
    try:
        return int(opened.getexif().get(ExifTags.Base.Orientation, 1))
    except (TypeError, *_DAMAGE):
        return 1


def _png_exif(opened: ImageFile) -> bool:
    """Whether a PNG may hold EXIF; Pillow would decode all of it to find out."""
    file = opened.fp
    assert file is not None
    at = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(at)
    return any(mark in content for mark in _PNG_EXIF)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels turned as EXIF orientation 1 to 8 says, in memory order."""
    if orientation in _TURNED:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _rgb(image: Image.Image) -> Image.Image:
    """The image as mode RGB; 16-bit greys keep their upper byte, transparency shows white."""
    if image.mode == "F":
        raise ValueError("float pixels have no known range, save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _name(image: Path | bytes) -> str:
    return f"an image of {len(image)} bytes" if isinstance(image, bytes) else str(image)
