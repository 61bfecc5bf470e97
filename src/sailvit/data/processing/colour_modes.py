"""Colour modes: all that Pillow decodes as 8-bit RGB, by stated rules where Pillow would clip.

- Transparent pixels become white. Colour profiles are not applied.
- Integers of more than 8 bits are grey of 8, 10, 12 or 16 bits: the smallest of these depths
  that holds the image's largest value, so that 12-bit data in 16 or 32 bits do not become
  black.
- Images whose range is unknown are refused: floats, negative values, values above 65535, and
  16-bit colours with nearly nothing in the upper 8 bits.
"""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

from sailvit.core.errors import DataError

_DEPTHS = (8, 10, 12, 16)
"""Bits that cameras and scanners give."""
_BLACK = 16
"""If all upper bytes are below it, 16-bit colours hold 12 bits at most."""
_GREY_SCALE = {"L;2": 85, "L;4": 17}
"""Factors by which Pillow scales PNG greys of 2 and 4 bits, but not the transparent grey."""


def stored_form(image: Image.Image) -> str:
    """The form of the pixels in the file (`RGB;16B`, `L;4`, ...); Pillow forgets it when it
    decodes.
    """
    tiles = getattr(image, "tile", None)
    stored = tiles[0].args if tiles else ""
    return str(stored[0] if isinstance(stored, tuple) and stored else stored)


def as_rgb(image: Image.Image) -> Image.Image:
    """The image as mode RGB.

    Raises:
        DataError: the range of its pixels is unknown; the message begins with a verb, for the
            image's name before it.
    """
    stored = stored_form(image)
    if image.mode == "F":
        raise _rangeless("has float pixels, whose range is unknown")
    if image.mode.startswith("I"):
        return _deep_grey(image)
    image.load()
    if ";16" in stored and _highest(image) < _BLACK:
        raise _rangeless("has 16-bit colours below 4096 of 65535 alone, so would come out black")
    _scale_transparent_colour(image, stored)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _deep_grey(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise _rangeless(f"has grey values from {low} to {high}; known are 0 to at most 65535")
    bits = next(bits for bits in _DEPTHS if high < 2**bits)
    # 32 bits, as 65535 * 255 does not fit into 16.
    grey = (values.astype(np.uint32) * 255 // (2**bits - 1)).astype(np.uint8)
    # Pillow inverts such TIFFs up to 8 bits only.
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:
        grey = 255 - grey
    if isinstance(clear := image.info.get("transparency"), int):
        grey[values == clear] = 255
    return Image.fromarray(grey).convert("RGB")


def _highest(image: Image.Image) -> int:
    """The largest value of any colour, transparency aside."""
    bands = [band for band in image.getbands() if band != "A"]
    return max(int(np.asarray(image.getchannel(band)).max()) for band in bands)


def _scale_transparent_colour(image: Image.Image, stored: str) -> None:
    """Scale a PNG's transparent colour to the range of decoded pixels; Pillow leaves it as
    stored.
    """
    clear = image.info.get("transparency")
    if isinstance(clear, int) and stored in _GREY_SCALE:
        image.info["transparency"] = clear * _GREY_SCALE[stored]
    elif isinstance(clear, tuple) and ";16" in stored:
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _rangeless(found: str) -> DataError:
    return DataError(f"{found}: save it with 8 bits, or scaled to all 16", kind="image")
