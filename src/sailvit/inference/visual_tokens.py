"""Visual tokens of images: tower and connector run once per image, however often it is asked
about.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch

from sailvit.core.errors import DataError
from sailvit.core.layout import VisualLayout
from sailvit.core.records import ImageLike
from sailvit.data.processing.decoding import Pixels
from sailvit.data.processing.images import load_image, tile_grid, tile_image
from sailvit.models.structure.mllm import MLLM

KEPT = 256 << 20
"""Most bytes of visual tokens that are kept for later questions: about 70 images of 12 tiles
with 256 tokens of 1,024 numbers in bf16."""
TILES = 32
"""Most tiles of the tower's size that go through it at the same time; more would take memory and
gain no speed."""

_DECODERS = min(8, os.cpu_count() or 1)
"""Most images that are decoded at the same time."""


class VisualTokens:
    """Visual tokens of images, each computed once and kept while memory for it is left.

    Two images are the same when their files or pixels are, byte by byte.
    """

    def __init__(self, mllm: MLLM, layout: VisualLayout, *, most_bytes: int = KEPT) -> None:
        self._mllm = mllm
        self._layout = layout
        self._most = most_bytes
        self._kept: OrderedDict[bytes, torch.Tensor] = OrderedDict()
        self.computed = 0
        """Tiles that went through the tower so far."""

    @torch.no_grad()
    def __call__(self, images: Sequence[ImageLike]) -> list[torch.Tensor]:
        """The visual tokens float[I, V, D] of each image, of shape (tiles, tokens, language
        width).

        Raises:
            DataError: an image cannot be read.
        """
        keys = [_key(image) for image in images]
        known = {key: self._kept[key] for key in keys if key in self._kept}
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in known}
        made = self._compute(list(new.values()))
        known |= dict(zip(new, made, strict=True))
        self._keep(known)
        return [known[key] for key in keys]

    def _compute(self, images: Sequence[ImageLike]) -> list[torch.Tensor]:
        if not images:
            return []
        pixels, cuts = zip(*self._decoded(images), strict=True)
        tiles = torch.cat(tuple(cuts))
        self.computed += len(tiles)
        device = self._mllm.device
        if self._layout.native is not None:
            return [
                self._mllm.visual(cut.to(device), grids=(_grid(image, self._layout),))
                for image, cut in zip(pixels, cuts, strict=True)
            ]
        parts = [self._mllm.visual(part.to(device)) for part in torch.split(tiles, TILES)]
        # Copies, or one image that is kept would keep the memory of all.
        return [part.clone() for part in torch.split(torch.cat(parts), [len(cut) for cut in cuts])]

    def _decoded(self, images: Sequence[ImageLike]) -> list[tuple[Pixels, torch.Tensor]]:
        """Pixels and tiles of each image."""
        if len(images) == 1:
            return [self._cut(images[0])]
        # Decoders let other threads run; those of one batch take as long as the tower on a CPU.
        with ThreadPoolExecutor(min(len(images), _DECODERS), "decoding") as pool:
            return list(pool.map(self._cut, images))

    def _cut(self, image: ImageLike) -> tuple[Pixels, torch.Tensor]:
        pixels = load_image(image)
        return pixels, tile_image(pixels, self._layout)

    def _keep(self, used: dict[bytes, torch.Tensor]) -> None:
        for key, visual in used.items():
            self._kept[key] = visual
            self._kept.move_to_end(key)
        total = sum(visual.nbytes for visual in self._kept.values())
        while total > self._most:
            total -= self._kept.popitem(last=False)[1].nbytes


def _grid(image: Pixels, layout: VisualLayout) -> tuple[int, int]:
    """Rows and columns of tiles of an image in native resolution."""
    columns, rows = tile_grid(image.shape[1], image.shape[0], layout)
    return rows, columns


def _key(image: ImageLike) -> bytes:
    """A hash of the image's file or pixels."""
    digest = blake2b(digest_size=16)
    if isinstance(image, Path):
        image = _read(image)
    if isinstance(image, bytes):
        digest.update(b"file")
        digest.update(image)
    else:
        pixels = image if isinstance(image, np.ndarray) else image.pixels()
        digest.update(repr(pixels.shape).encode())
        digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"image {path} cannot be read ({error.strerror}); check its path and mode",
            kind="missing file",
        ) from error
