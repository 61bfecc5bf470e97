"""Decoding: image files and bytes as upright RGB. Only this module knows types and rotation."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from sailvit.core.errors import DataError
from sailvit.data.processing.colour_modes import as_rgb, stored_form
from sailvit.data.processing.png_text import ORIENTED, refused_for_text, without_text

Pixels = NDArray[np.uint8]
"""Decoded RGB, uint8[H, W, 3]."""

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
"""What Pillow's decoders raise on damaged files."""
_JPEG = ("JPEG", "MPO")
"""Pillow's names of JPEG files; MPO is a JPEG with more pictures behind the first."""
_PROGRAMS = ("EPS", "WMF")
"""Types that Pillow gives to another program, which is unsafe with files from strangers."""
_PNG_EXIF = (b"eXIf", *ORIENTED)
"""Chunks in which a PNG may keep its rotation, also behind its pixels."""
_TURNED = {5, 6, 7, 8}
"""EXIF orientations that exchange width and height."""
_Read = TypeVar("_Read")


def decode(image: Path | bytes, max_pixels: int) -> Pixels:
    """Upright RGB uint8[H, W, 3].

    Raises:
        DataError: the image is damaged, larger than `max_pixels`, or of an unknown range of
            values.
    """
    return _past_long_text(image, lambda file, name: _decoded(file, name, max_pixels))


def decoded_size(image: Path | bytes, max_pixels: int) -> tuple[int, int]:
    """Width and height of the upright image, without decoding it."""
    return _past_long_text(image, lambda file, name: _upright_size(file, name, max_pixels))


def reads_alike(image: bytes, max_pixels: int) -> bool:
    """Whether any program's decoder gives the pixels of `decode`.

    That holds for one upright, opaque picture of 8-bit grey or RGB as JPEG, PNG or WebP;
    programs differ in how they read rotation, transparency, depth and further pictures.
    """
    return _past_long_text(image, lambda file, name: _is_plain(file, name, max_pixels))


@cache
def jpeg_decoder() -> Any:
    """The decoder of simplejpeg, twice as fast as Pillow, identical pixels; None when it is not
    installed.
    """
    try:
        return import_module("simplejpeg").decode_jpeg
    except ImportError:
        return None


def _past_long_text(image: Path | bytes, read: Callable[[Path | bytes, str], _Read]) -> _Read:
    """The result of `read` for an image and its name; a PNG whose texts are too long for Pillow
    is read without them.
    """
    name = f"an image of {len(image)} bytes" if isinstance(image, bytes) else str(image)
    try:
        return read(image, name)
    except DataError as error:
        if not refused_for_text(error.__cause__):
            raise
    return read(without_text(image if isinstance(image, bytes) else image.read_bytes()), name)


def _decoded(image: Path | bytes, name: str, max_pixels: int) -> Pixels:
    with _open(image, name, max_pixels) as opened:
        # Sorted, as turning an image upright may exchange them.
        sides = sorted(opened.size)
        try:
            # Without a name Pillow does not map the file into memory; a mapped TIFF it would
            # not turn.
            opened.filename = ""
            pixels = _jpeg(opened)
            if pixels is None:
                pixels = np.array(as_rgb(opened))
            # Asked after decoding, in which Pillow turns a TIFF itself and removes its tag.
            pixels = _upright(pixels, _orientation(opened))
        except DataError as error:
            raise DataError(f"{name} {error}", kind=error.kind) from error
        except _DAMAGE as error:
            raise DataError(
                f"{name} is damaged ({error}); expected a complete image: fetch it again or remove"
                " its record",
                kind="image",
            ) from error
    if sorted(pixels.shape[:2]) != sides:
        raise DataError(
            f"{name} is damaged (its header says {sides[0]} by {sides[1]} pixels, decoded it has"
            f" {pixels.shape[1]} x {pixels.shape[0]}); save it again or remove its record",
            kind="image",
        )
    return pixels


def _upright_size(image: Path | bytes, name: str, max_pixels: int) -> tuple[int, int]:
    with _open(image, name, max_pixels) as opened:
        width, height = opened.size
        return (height, width) if _lies(opened) else (width, height)


def _is_plain(image: Path | bytes, name: str, max_pixels: int) -> bool:
    with _open(image, name, max_pixels) as opened:
        return (
            opened.format in ("JPEG", "PNG", "WEBP")
            and opened.mode in ("RGB", "L")
            and ";16" not in stored_form(opened)
            and not opened.has_transparency_data
            and getattr(opened, "n_frames", 1) == 1
            and _orientation(opened) == 1
        )


def _open(image: Path | bytes, name: str, max_pixels: int) -> ImageFile:
    try:
        opened = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
    except FileNotFoundError as error:
        raise DataError(
            f"{name} does not exist; check the source's `images` folder or remove the record",
            kind="missing file",
        ) from error
    except PermissionError as error:
        raise DataError(
            f"{name} may not be read ({error.strerror}); change its mode", kind="permission"
        ) from error
    except (Image.DecompressionBombError, *_DAMAGE) as error:
        # Pillow's text holds an address in memory, which differs from run to run.
        found = "no known kind" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(
            f"{name} cannot be opened ({found}); expected an image file of a kind that Pillow"
            " reads",
            kind="image size" if isinstance(error, Image.DecompressionBombError) else "image",
        ) from error
    pixels = opened.width * opened.height
    if not 0 < pixels <= max_pixels:
        opened.close()
        raise DataError(
            f"{name} has {opened.width} x {opened.height} pixels; expected one at least, and at most"
            f" {max_pixels:,} are decoded: scale it down or remove its record",
            kind="image size",
        )
    if opened.format in _PROGRAMS:
        opened.close()
        raise DataError(
            f"{name} is {opened.format}, a drawing that another program would have to run; save it"
            " as PNG or remove its record",
            kind="image",
        )
    return opened


def _jpeg(opened: ImageFile) -> Pixels | None:
    """A JPEG's pixels by the fast decoder; None where Pillow has to decode.

    That is for CMYK, which Pillow converts, and for files that simplejpeg refuses where libjpeg
    only warns: so the same files are read with and without simplejpeg.
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


def _lies(opened: ImageFile) -> bool:
    """Whether width and height of an opened image are exchanged in its upright form."""
    turned = _orientation(opened) in _TURNED
    if isinstance(opened, TiffImageFile):
        # Pillow exchanges them for TIFFs as it opens the file, by the tag alone.
        return turned != (opened.tag_v2.get(ExifTags.Base.Orientation) in _TURNED)
    return turned


def _orientation(opened: ImageFile) -> int:
    """The EXIF orientation; 1 when it is missing, not 1 to 8, or unreadable."""
    if opened.format == "PNG" and "exif" not in opened.info and not _png_exif(opened):
        return 1
    try:
        found = opened.getexif().get(ExifTags.Base.Orientation, 1)
        return int(found) if found in range(1, 9) else 1
    except (TypeError, *_DAMAGE):
        return 1


def _png_exif(opened: ImageFile) -> bool:
    """Whether a PNG may hold EXIF; Pillow would have to decode it to know."""
    file = opened.fp
    if file is None:
        return True  # it is decoded already
    at = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(at)
    return any(mark in content for mark in _PNG_EXIF)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels turned upright from EXIF orientation 1 to 8, contiguous in memory."""
    if orientation in _TURNED:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
