"""Images as tiles: the grid of the closest aspect ratio, each cell resized, then the whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import load_image


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


def _opened(place: str) -> Any:
    """The image of a path, or of what else transformers loads: a URL or base64."""
    local = len(place) < 4096 and Path(place).is_file()
    return Image.open(place) if local else load_image(place)


def _upright(image: Image.Image) -> Image.Image:
    """The image in RGB, turned by its EXIF, transparency laid on white."""
    turned = ImageOps.exif_transpose(image)
    if turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info:
        seen = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return turned.convert("RGB")
