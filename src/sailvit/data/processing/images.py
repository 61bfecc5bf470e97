"""Images: bytes to RGB pixels, and pixels to the tower's tiles."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sailvit.core.errors import DataError
from sailvit.core.layout import VisualLayout
from sailvit.core.records import ImageLike
from sailvit.data.processing.decoding import Pixels, decode, decoded_size, reads_alike

MAX_PIXELS = 80_000_000
"""Most pixels of an image that is decoded: 240 MB as RGB, and below Pillow's own limit (its
warning comes from 89 million on), so that this is the only one."""


def load_image(image: ImageLike, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """RGB pixels uint8[H, W, 3], upright by EXIF, transparency laid on white; DataError when it
    cannot be decoded.
    """
    if isinstance(image, Path | bytes):
        return decode(image, max_pixels)
    return _checked_array(image if isinstance(image, np.ndarray) else image.pixels())


def data_uri(pixels: Pixels) -> str:
    """The image as a `data:` URI of a PNG, to be embedded in a page."""
    return "data:image/png;base64," + base64.b64encode(encoded(pixels)).decode()


def thumbnail_uri(pixels: Pixels, side: int, quality: int | None) -> str:
    """The image, at most `side` pixels wide and high, as a `data:` URI of a WebP file; `quality`
    None: without loss.
    """
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side))
    file = io.BytesIO()
    picture.save(file, format="WebP", lossless=quality is None, quality=quality or 80)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def encoded(pixels: Pixels) -> bytes:
    """The image as a PNG file."""
    # PNG, as a page about pixels must not show the artefacts of a lossy format.
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def image_size(image: ImageLike, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of the upright image, read from its header alone."""
    if isinstance(image, np.ndarray):
        return image.shape[1], image.shape[0]
    if not isinstance(image, Path | bytes):
        return image.size
    return decoded_size(image, max_pixels)


@dataclass(frozen=True)
class Doubled:
    """An image of twice the width and height, made when its pixels are needed."""

    image: ImageLike
    """The image."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""
        width, height = image_size(self.image)
        return 2 * width, 2 * height

    def pixels(self) -> Pixels:
        """uint8[H, W, 3], as Pillow's bilinear filter gives them."""
        given = torch.from_numpy(load_image(self.image)).permute(2, 0, 1)[None]
        # In float, as torch rounds bytes otherwise; at most 1 of 255 from Pillow's.
        made = torch.nn.functional.interpolate(given.float(), scale_factor=2, mode="bilinear")
        found: Pixels = made[0].round().byte().permute(1, 2, 0).contiguous().numpy()
        return found


def looks_alike_everywhere(image: bytes, *, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether other programs decode the pixels of `load_image`; reads the header alone."""
    return reads_alike(image, max_pixels)


def tile_grid(width: int, height: int, layout: VisualLayout) -> tuple[int, int]:
    """Columns and rows of tiles for an image: the grid of at most `max_tiles` cells with the
    closest aspect ratio, or in native resolution its own one.

    Among equally close grids it is the largest one that the image fills by more than half, else
    the smallest (InternVL2's rule).
    """
    if layout.native is not None:
        return layout.native.grid(width, height, layout.tile_size)
    return _closest(width, height, _grids(layout.max_tiles), layout.tile_size)


def tile_grids(width: int, height: int, layout: VisualLayout) -> list[tuple[int, int]]:
    """The grids by which an image is cut, one behind the other: `tile_grid`, and with
    `second_grid` the closest of those whose columns or rows do not divide its own.

    A first grid of one cell is the whole image, which the thumbnail shows: it is left out.
    """
    first = tile_grid(width, height, layout)
    grids = _grids(layout.max_tiles) if layout.second_grid and layout.native is None else ()
    others = [(i, j) for i, j in grids if first[0] % i or first[1] % j]
    if not others:
        return [first]
    second = _closest(width, height, others, layout.tile_size)
    return [second] if first == (1, 1) and layout.thumbnail else [first, second]


def _closest(
    width: int, height: int, grids: Sequence[tuple[int, int]], tile_size: int
) -> tuple[int, int]:
    distances = [abs(width / height - i / j) for i, j in grids]
    nearest = min(distances)
    # No tolerance is needed: grids of one ratio, as 1 x 2 and 2 x 4, give the same float.
    closest = [grid for grid, distance in zip(grids, distances, strict=True) if distance == nearest]
    half_tile = tile_size**2 / 2
    filled = [(i, j) for i, j in closest[1:] if width * height > half_tile * i * j]
    # `_grids` is sorted by cells, so the last one is the largest.
    return filled[-1] if filled else closest[0]


def tile_count(image: ImageLike, layout: VisualLayout) -> int:
    """Number of tiles that `tile_image` will make. The image is not decoded, and where each is
    one tile its file is not opened.
    """
    if layout.most_tiles == 1:
        return 1
    cells = sum(columns * rows for columns, rows in tile_grids(*image_size(image), layout))
    return cells + _thumbnails(cells, layout)


def tile_image(
    image: Pixels, layout: VisualLayout, space: torch.Tensor | None = None
) -> torch.Tensor:
    """Tiles uint8[I, 3, H, W] of an image uint8[H, W, 3]: the cells of each grid row by row, then
    the thumbnail.

    They are channels-last in memory, as decoded pixels are: the conversion to planes would take
    as long as resizing. With `space`, uint8[n], they are made there, from its first byte on.
    """
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    grids, size = tile_grids(image.shape[1], image.shape[0], layout), layout.tile_size
    cells = sum(columns * rows for columns, rows in grids)
    tiles = _empty(cells + _thumbnails(cells, layout), size, size, space)
    start = 0
    for columns, rows in grids:
        end = start + columns * rows
        _cut(pixels, columns, rows, tiles[start:end])
        start = end
    if _thumbnails(cells, layout):
        _resize(pixels, tiles[-1])
    return tiles


def _cut(pixels: torch.Tensor, columns: int, rows: int, out: torch.Tensor) -> None:
    """Fill `out`, uint8[I, 3, H, W], with the cells of an image uint8[3, H, W]."""
    if len(out) == 1:
        _resize(pixels, out[0])
        return
    size = out.shape[-1]
    sheet = _resize(pixels, _empty(1, rows * size, columns * size)[0])
    grid = sheet.view(3, rows, size, columns, size).permute(1, 3, 0, 2, 4)
    out.view(grid.shape).copy_(grid)


def _thumbnails(cells: int, layout: VisualLayout) -> int:
    return int(layout.thumbnail and layout.native is None and cells > 1)


def _empty(count: int, height: int, width: int, space: torch.Tensor | None = None) -> torch.Tensor:
    """An uninitialised tensor uint8[I, 3, H, W], channels-last, in `space` if there is one."""
    if space is None:
        space = torch.empty(count * height * width * 3, dtype=torch.uint8)
    return space[: count * height * width * 3].view(count, height, width, 3).permute(0, 3, 1, 2)


def join_tiles(cuts: Sequence[torch.Tensor]) -> torch.Tensor:
    """uint8[I, C, H, W]: the tiles of all images; they are not copied where they already lie
    one behind the other in memory.
    """
    first = cuts[0]
    ends = list(accumulate((cut.nbytes for cut in cuts), initial=first.data_ptr()))
    storage = first.untyped_storage().data_ptr()
    shared = all(cut.untyped_storage().data_ptr() == storage for cut in cuts)
    if shared and [cut.data_ptr() for cut in cuts] == ends[:-1]:
        return first.as_strided((sum(map(len, cuts)), *first.shape[1:]), first.stride())
    return torch.cat(tuple(cuts))


def _resize(pixels: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """`out`, uint8[3, H, W], filled with the resized pixels: antialiased bicubic on bytes, 4
    times as fast as Pillow.

    It is what `interpolate` calls; that takes no `out`, and makes planes of its result.
    """
    # Drawn data often have the tile's size; resizing would compute each pixel to be itself.
    if pixels.shape == out.shape:
        return out.copy_(pixels)
    resize = torch.ops.aten._upsample_bicubic2d_aa.out
    resize(
        pixels[None],
        list(out.shape[1:]),
        align_corners=False,
        scales_h=None,
        scales_w=None,
        out=out[None],
    )
    return out


@cache
def _grids(most: int) -> tuple[tuple[int, int], ...]:
    """All grids of at most `most` cells, the smallest first."""
    grids = ((i, j) for i in range(1, most + 1) for j in range(1, most // i + 1))
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))


def _checked_array(image: Pixels) -> Pixels:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(
            f"found a decoded image {image.dtype}{list(image.shape)}; expected uint8[H, W, 3]",
            kind="image",
        )
    return image
