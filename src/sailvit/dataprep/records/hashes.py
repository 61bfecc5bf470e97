"""Hashes that find copies: of bytes, and of how a picture looks."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

BITS = 128
"""Length of every hash; stored as two 64-bit integers."""

Hash = tuple[int, int]
"""High and low half of a hash."""

# The weights of ITU-R BT.601, as in Pillow's grey.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_FLAT = 0.5
"""Least standard deviation of cells, in grey levels: below it there is nothing to compare. A
picture of bricks has 1.5."""


def content_hash(*contents: bytes) -> Hash:
    """A hash of several contents; it depends on where one ends and the next begins."""
    digest = blake2b(digest_size=16)
    for content in contents:
        digest.update(blake2b(content, digest_size=16).digest())
    return _halves(digest.digest())


def picture_hash(pixels: NDArray[np.uint8]) -> Hash | None:
    """A difference hash of uint8[H, W, 3]: copies of other size, quality or brightness differ
    by few bits. None for pictures of a single colour.

    The grey picture is reduced to 9 x 8 and to 8 x 9 cells; a bit says whether a cell is
    brighter than its left or its upper neighbour. On 19 photographs, copies of 0.3 to 1.5 times
    the size or of JPEG quality 20 differ by at most 7 of 128 bits, most of them by none, and
    different photographs by at least 30.
    """
    # Not ImageHash's: there copies differ by up to 13 bits, and a hash takes 32 ms, not 18
    # (docs/decisions/011).
    grey = torch.from_numpy(pixels @ _LUMA)[None, None]
    wide = _cells(grey, 9, 8)
    high = _cells(grey, 8, 9)
    if wide.std() < _FLAT and high.std() < _FLAT:
        return None
    bits = np.concatenate([(wide[:, 1:] > wide[:, :-1]).ravel(), (high[1:] > high[:-1]).ravel()])
    return _halves(np.packbits(bits).tobytes())


def _cells(grey: torch.Tensor, width: int, height: int) -> NDArray[np.float32]:
    cells: NDArray[np.float32] = interpolate(
        # Antialiased: else the few pixels under the middle of each cell would decide.
        grey,
        (height, width),
        mode="bilinear",
        antialias=True,
    )[0, 0].numpy()
    return cells


def _halves(content: bytes) -> Hash:
    return int.from_bytes(content[:8], "big"), int.from_bytes(content[8:], "big")
