"""Images as tiles: the grid of the closest aspect ratio, each cell resized, then the whole."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import get_session
from PIL import ExifTags, Image
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is turned upright, by its EXIF orientation."""
_LONGEST_PATH = 4096
"""Characters of a path at most; what is longer is base64."""
_DEPTHS = (8, 10, 12, 16)
"""Bits of grey that cameras and scanners give."""
_BLACK = 16
"""If all upper bytes are below it, 16-bit colours hold 12 bits at most."""
_GREY_SCALE = {"L;2": 85, "L;4": 17}
"""Factors by which Pillow scales PNG greys of 2 and 4 bits, but not the transparent grey."""


class SailvitImageProcessor(BaseImageProcessor):
    """Makes the tower's tiles of images, pixel by pixel as its training did."""

    model_input_names = ["pixel_values"]

    def __init__(
        self,
        size: Mapping[str, int] | None = None,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        *,
        rescale_divisor: float = 255.0,
        max_tiles: int = 1,
        use_thumbnail: bool = True,
        image_seq_length: int = 256,
        native: Mapping[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the settings.

        Args:
            size: `height` and `width` of a tile in pixels, which are equal.
            image_mean: channel means, for pixels in 0..1.
            image_std: channel standard deviations, for pixels in 0..1.
            rescale_divisor: what bytes are divided by first.
            max_tiles: most tiles of an image, without the thumbnail.
            use_thumbnail: whether an image of several tiles also gets one of the whole.
            image_seq_length: visual tokens of one tile.
            native: `tile` in pixels, `least` and `most` tiles of an image that keeps its
                aspect ratio; None: images become square tiles.
            kwargs: what every image processor of transformers holds.
        """
        super().__init__(**kwargs)
        self.size = dict(size or {"height": 224, "width": 224})
        self.image_mean, self.image_std = list(image_mean), list(image_std)
        self.rescale_divisor = rescale_divisor
        self.max_tiles, self.use_thumbnail = max_tiles, use_thumbnail
        self.image_seq_length = image_seq_length
        self.native = dict(native) if native else None

    def preprocess(self, images: Any, return_tensors: str | None = None, **_: Any) -> BatchFeature:
        """`pixel_values` float[I, 3, H, W] of all images' tiles in order, and `num_patches`, each
        image's number of tiles; in native resolution `image_grids` int64[n, 2], each image's
        rows and columns of them.
        """
        given = [_pixels(image) for image in _flat(images)]
        made = [self._tiles(image) for image in given]
        scale = self.rescale_divisor
        mean = torch.tensor(self.image_mean).view(1, 3, 1, 1) * scale
        std = torch.tensor(self.image_std).view(1, 3, 1, 1) * scale
        pixels = (torch.cat(made).float() - mean) / std
        counts = torch.tensor([len(tiles) for tiles in made])
        data = {"pixel_values": pixels, "num_patches": counts}
        if self.native:
            grids = [self._grid(image.shape[3], image.shape[2]) for image in given]
            data["image_grids"] = torch.tensor([(rows, columns) for columns, rows in grids])
        return BatchFeature(data, tensor_type=return_tensors)

    def get_number_of_image_patches(
        self, height: int, width: int, images_kwargs: Mapping[str, Any] | None = None
    ) -> int:
        """Tiles of an image of this size in pixels."""
        del images_kwargs
        columns, rows = self._grid(width, height)
        return columns * rows + int(self._overview(columns * rows))

    def _overview(self, cells: int) -> bool:
        """Whether a tile of the whole image follows those of so many cells."""
        return self.use_thumbnail and self.native is None and cells > 1

    def _grid(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows: in native resolution the image's own, else of the closest aspect
        ratios the largest that the image fills by half, or the smallest (InternVL2's rule).
        """
        if self.native:
            return _own_grid(width, height, **self.native)
        most = self.max_tiles
        grids = [(i, j) for i in range(1, most + 1) for j in range(1, most // i + 1)]
        grids.sort(key=lambda grid: grid[0] * grid[1])
        apart = [abs(width / height - i / j) for i, j in grids]
        near = [grid for grid, found in zip(grids, apart, strict=True) if found == min(apart)]
        half = self.size["height"] ** 2 / 2
        return [near[0], *(g for g in near[1:] if width * height > half * g[0] * g[1])][-1]

    def _tiles(self, image: torch.Tensor) -> torch.Tensor:
        """Tiles uint8[I, 3, H, W] of an image uint8[1, 3, H, W]."""
        columns, rows = self._grid(image.shape[3], image.shape[2])
        side = self.native["tile"] if self.native else self.size["height"]
        sheet = _resized(image, rows * side, columns * side)[0]
        cells = sheet.view(3, rows, side, columns, side).permute(1, 3, 0, 2, 4)
        tiles = cells.reshape(rows * columns, 3, side, side)
        if self._overview(len(tiles)):
            tiles = torch.cat([tiles, _resized(image, side, side)])
        return tiles


def _own_grid(width: int, height: int, tile: int, least: int, most: int) -> tuple[int, int]:
    """Columns and rows of an image's own grid: sides rounded to tiles, then scaled up to `least`
    or down to `most` of them (Qwen2-VL's rule); what is longer even then is cut off.
    """
    wide, high, tiny = width / tile, height / tile, 1e-9
    columns, rows = max(1, round(wide)), max(1, round(high))
    if columns * rows < least:
        up = math.sqrt(least / (wide * high))
        columns, rows = math.ceil(wide * up - tiny), math.ceil(high * up - tiny)
    if columns * rows <= most:
        return columns, rows
    down = math.sqrt(most / (wide * high))
    columns = min(max(1, math.floor(wide * down + tiny)), most)
    return columns, min(max(1, math.floor(high * down + tiny)), most // columns)


def _resized(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The image uint8[1, 3, H, W] in another size."""
    if image.shape[2:] == (height, width):
        return image
    return torch.nn.functional.interpolate(
        image, (height, width), mode="bicubic", antialias=True, align_corners=False
    )


def _flat(images: Any) -> list[Any]:
    """All images of a list, or of lists of lists."""
    if not isinstance(images, list | tuple):
        return [images]
    return [each for image in images for each in _flat(image)]


def _pixels(image: Any) -> torch.Tensor:
    """Pixels uint8[1, 3, H, W]: upright, transparency laid on white."""
    if isinstance(image, str | Path):
        image = _opened(str(image))
    if isinstance(image, Image.Image):
        image = _upright(image)
    pixels = torch.as_tensor(np.array(image))
    if pixels.ndim != 3 or pixels.dtype != torch.uint8 or 3 not in pixels.shape[::2]:
        raise ValueError(
            f"found pixels {pixels.dtype}{list(pixels.shape)}; expected uint8 [H, W, 3] or [3, H, W]"
        )
    planes = pixels if pixels.shape[2] != 3 else pixels.permute(2, 0, 1)
    # Rows of bytes side by side, as in training: bicubic rounding depends on nothing else.
    return planes[None].contiguous(memory_format=torch.channels_last)


def _opened(place: str) -> Image.Image:
    """The image of a path, a URL, a data URI or base64, with what transformers' `load_image`
    takes off: transparency and more than 8 bits.
    """
    try:
        return Image.open(io.BytesIO(_content(place)))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"found {place[:80]!r}; expected an image's path, URL, data URI or base64"
        ) from error


def _content(place: str) -> bytes:
    if place.startswith(("http://", "https://")):
        content: bytes = get_session().get(place).content
        return content
    if len(place) < _LONGEST_PATH and Path(place).is_file():
        return Path(place).read_bytes()
    return base64.b64decode(place.partition(",")[2] if place.startswith("data:") else place)


def _upright(image: Image.Image) -> Image.Image:
    """The image in RGB, turned by its EXIF."""
    seen = _rgb(image)
    # Asked after decoding, in which Pillow turns a TIFF itself and removes its tag.
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return seen if turn is None else seen.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    """The image in RGB by training's rules: transparency laid on white, deep greys scaled, and
    ValueError where the range of its pixels is unknown.
    """
    stored = _stored_form(image)
    if image.mode == "F":
        raise _rangeless("float pixels")
    if image.mode.startswith("I"):
        return _deep_grey(image)
    image.load()
    if ";16" in stored and _highest(image) < _BLACK:
        raise _rangeless("16-bit colours below 4096 of 65535 alone")
    _scale_transparent_colour(image, stored)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _stored_form(image: Image.Image) -> str:
    """The form of the pixels in the file (`RGB;16B`, `L;4`), which Pillow forgets when it
    decodes.
    """
    tiles = getattr(image, "tile", None)
    stored = tiles[0].args if tiles else ""
    return str(stored[0] if isinstance(stored, tuple) and stored else stored)


def _highest(image: Image.Image) -> int:
    """The largest value of any colour, transparency aside."""
    bands = [band for band in image.getbands() if band != "A"]
    return max(int(np.asarray(image.getchannel(band)).max()) for band in bands)


def _scale_transparent_colour(image: Image.Image, stored: str) -> None:
    """Scale a PNG's transparent colour to the range of decoded pixels, which Pillow does not."""
    clear = image.info.get("transparency")
    if isinstance(clear, int) and stored in _GREY_SCALE:
        image.info["transparency"] = clear * _GREY_SCALE[stored]
    elif isinstance(clear, tuple) and ";16" in stored:
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _deep_grey(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits in RGB, scaled from the smallest depth that holds it."""
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise _rangeless(f"grey values from {low} to {high}")
    bits = next(bits for bits in _DEPTHS if high < 2**bits)
    # 32 bits, as 65535 * 255 does not fit into 16.
    grey = (values.astype(np.uint32) * 255 // (2**bits - 1)).astype(np.uint8)
    # Pillow inverts such TIFFs up to 8 bits only.
    if getattr(image, "tag_v2", {}).get(ExifTags.Base.PhotometricInterpretation) == 0:
        grey = 255 - grey
    if isinstance(clear := image.info.get("transparency"), int):
        grey[values == clear] = 255
    return Image.fromarray(grey).convert("RGB")


def _rangeless(found: str) -> ValueError:
    return ValueError(
        f"found {found}, whose range is unknown; expected 8 bits, or values scaled to all 16"
    )
