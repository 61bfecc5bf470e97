"""The same picture in every colour mode, file format and orientation, and how it has to be seen.

What is expected is worked out from the stored numbers, without Pillow's own conversions.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, features

WIDTH, HEIGHT = 24, 16
EXACT = ("PNG", "TIFF", "WEBP", "BMP", "JPEG2000", "PPM", "TGA", "GIF", "PCX", "IM", "QOI")
"""Formats that are written here without loss."""
ORIENTED = ("JPEG", "MPO", "PNG", "TIFF", "WEBP", "AVIF")
"""Formats that carry an orientation."""
LOSS = 16
"""Grey levels by which smooth pictures change in JPEG and AVIF."""
LOSSLESS = {"WEBP": {"lossless": True, "exact": True}, "JPEG2000": {"irreversible": False}}


@dataclass(frozen=True)
class Stored:
    """A file, and the upright RGB picture that it is."""

    name: str
    """Mode, format and orientation."""
    data: bytes
    """The file."""
    seen: np.ndarray
    """uint8[H, W, 3]."""
    off: int
    """Grey levels by which decoded pixels may differ."""


def _smooth() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([40 + x * 8, 30 + y * 12, 220 - 4 * x - 5 * y], -1).astype(np.uint8)


def _alpha() -> np.ndarray:
    return np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))


def _laid_on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return np.rint(rgb * share + 255 * (1 - share)).astype(np.uint8)


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2).astype(np.uint8)


def _greys() -> dict[str, tuple[Image.Image, np.ndarray, int]]:
    red = _smooth()[..., 0]
    deep = red.astype(np.uint16) * 257
    return {
        "1": (Image.fromarray(red > 128), _grey((red > 128) * 255), 0),
        "L": (Image.fromarray(red), _grey(red), 0),
        "LA": (
            Image.fromarray(np.stack([red, _alpha()], -1), "LA"),
            _laid_on_white(_grey(red), _alpha()),
            1,
        ),
        "I": (Image.fromarray(deep.astype(np.int32)), _grey(red), 0),
        "I;16": (Image.fromarray(deep), _grey(red), 0),
        "I;16B": (
            Image.frombytes("I;16B", (WIDTH, HEIGHT), deep.astype(">u2").tobytes()),
            _grey(red),
            0,
        ),
    }


def _colours() -> dict[str, tuple[Image.Image, np.ndarray, int]]:
    rgb, alpha = _smooth(), _alpha()
    luma = rgb @ np.array([0.299, 0.587, 0.114])
    blue, red = ((rgb[..., 2] - luma) / 1.772 + 128, (rgb[..., 0] - luma) / 1.402 + 128)
    ycc = np.rint(np.stack([luma, blue, red], -1)).clip(0, 255).astype(np.uint8)
    black = np.full_like(rgb[..., :1], 51)
    inked = np.rint(rgb * (204 / 255)).astype(np.uint8)
    return {
        "RGB": (Image.fromarray(rgb), rgb, 0),
        "RGBA": (Image.fromarray(np.dstack([rgb, alpha])), _laid_on_white(rgb, alpha), 1),
        "RGBX": (Image.fromarray(np.dstack([rgb, alpha]), "RGBX"), rgb, 0),
        "CMYK": (Image.fromarray(np.dstack([255 - rgb, black]), "CMYK"), inked, 1),
        "YCbCr": (Image.fromarray(ycc, "YCbCr"), rgb, 2),
        # L* of 53.7 is the grey 128 of sRGB.
        "LAB": (Image.new("LAB", (WIDTH, HEIGHT), (137, 128, 128)), np.full_like(rgb, 128), 2),
    }


def _palettes() -> dict[str, tuple[Image.Image, np.ndarray, int]]:
    index = (np.mgrid[:HEIGHT, :WIDTH].sum(0) % 4).astype(np.uint8)
    palette = np.array([[200, 10, 20], [0, 150, 30], [40, 50, 250], [90, 90, 90]], np.uint8)
    alpha = np.array([255, 0, 128, 255], np.uint8)

    def made() -> Image.Image:
        image = Image.fromarray(index, "P")
        image.putpalette(palette.tobytes())
        return image

    clear, soft = made(), made()
    clear.info["transparency"] = 2
    soft.info["transparency"] = alpha.tobytes()
    both = Image.frombytes("PA", (WIDTH, HEIGHT), np.dstack([index, alpha[index]]).tobytes())
    both.putpalette(palette.tobytes())
    seen = palette[index]
    return {
        "P": (made(), seen, 0),
        "P, one colour clear": (clear, _laid_on_white(seen, np.where(index == 2, 0, 255)), 0),
        "P, an alpha each": (soft, _laid_on_white(seen, alpha[index]), 1),
        "PA": (both, _laid_on_white(seen, alpha[index]), 1),
    }


def turned(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels as a camera stores them under an orientation; worked out from the EXIF standard.

    Orientation n says which sides of the picture the stored first row and first column are.
    """
    flipped = upright[:, ::-1]
    return np.ascontiguousarray(
        {
            1: upright,
            2: flipped,
            3: upright[::-1, ::-1],
            4: upright[::-1],
            5: upright.swapaxes(0, 1),
            6: np.rot90(upright),
            7: np.rot90(flipped),
            8: np.rot90(upright, -1),
        }[orientation]
    )


def _saved(image: Image.Image, kind: str, orientation: int | None) -> bytes:
    settings = dict(LOSSLESS.get(kind, {"quality": 95} if kind in ("JPEG", "MPO", "AVIF") else {}))
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        settings["exif"] = exif
    if "transparency" in image.info:
        settings["transparency"] = image.info["transparency"]
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def _turned_image(image: Image.Image, orientation: int) -> Image.Image:
    """Pixels of any mode as they are stored, with palette and the like."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    if orientation == 1:
        return image
    done = image.transpose(Image.Transpose(back[orientation]))
    done.info.update(image.info)
    return done


def _written(mode: str, kind: str) -> str | None:
    """The mode that a file of this kind holds of a picture; None where it holds another one."""
    with_alpha = {"WEBP": "RGBA", "AVIF": "RGBA"}
    if kind in with_alpha and mode not in ("RGB", "RGBA"):
        return None
    # These drop transparency, or colours, as they are written.
    if kind in ("BMP", "PPM", "PCX") and ("A" in mode or "," in mode):
        return None
    if kind == "GIF" and mode not in ("L", "P", "P, one colour clear"):
        return None
    if kind in ("JPEG", "MPO") and mode not in ("L", "RGB", "CMYK"):
        return None
    if (kind, mode) in (("IM", "PA"), ("JPEG2000", "YCbCr"), ("PPM", "I;16B")):
        return None
    if "," in mode and kind not in ("PNG", "GIF"):
        return None
    return mode


def stored_images() -> list[Stored]:
    """Every mode in every format that holds it, upright, and in every orientation that it carries."""
    found = []
    for mode, (image, seen, off) in {**_greys(), **_colours(), **_palettes()}.items():
        for kind in dict.fromkeys((*EXACT, *ORIENTED)):
            if _written(mode, kind) is None or (kind == "AVIF" and not features.check("avif")):
                continue
            loss = off if kind in EXACT else LOSS
            orientations = (None, *range(1, 9)) if kind in ORIENTED else (None,)
            for orientation in orientations:
                try:
                    data = _saved(_turned_image(image, orientation or 1), kind, orientation)
                except (OSError, ValueError, KeyError):
                    break  # a format without this mode
                found.append(Stored(f"{mode}/{kind}/{orientation or 'none'}", data, seen, loss))
    return found
