"""Which patches of an image the tower finds like a chosen one, laid over the image."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch.nn.functional import cosine_similarity

from sailvit.core.layout import VisualLayout
from sailvit.data.processing.decoding import Pixels
from sailvit.data.processing.images import tile_image
from sailvit.models.towers.tower import Tower

_LARGEST = 768
"""Longest side of the picture that is shown."""
_COLOURS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)])
"""Viridis from unlike to like: its lightness alone tells the order, also to the colour-blind."""
_OPACITY = 0.55


@torch.no_grad()
def likeness(
    tower: Tower, layout: VisualLayout, image: Pixels, place: tuple[float, float]
) -> NDArray[np.float32]:
    """float32[rows, columns]: cosine similarity of each patch's features with those of the
    patch at `place`, x and y from 0 to 1; the whole image is one tile.
    """
    tile = tile_image(image, layout.squared)[:1].to(tower.mean.device)
    features = tower(tile)[0].float()
    side = round(len(features) ** 0.5)
    row, column = _patch(place, side)
    found = cosine_similarity(features, features[row * side + column], dim=-1)
    return found.reshape(side, side).cpu().numpy()


def shown_picture(image: Pixels) -> Image.Image:
    """The image in the size in which it is shown."""
    shown = Image.fromarray(image)
    shown.thumbnail((_LARGEST, _LARGEST))
    # Small pictures are enlarged, or one could not point at a patch.
    scale = max(1, _LARGEST // 2 // max(shown.size))
    return shown.resize((shown.width * scale, shown.height * scale), Image.Resampling.NEAREST)


def overlay(image: Pixels, found: NDArray[np.float32], place: tuple[float, float]) -> Image.Image:
    """The image under the similarities in colour, the chosen patch in a frame.

    Colours span the patches' own range without the chosen one, which is always 1.
    """
    side = len(found)
    row, column = _patch(place, side)
    others = np.delete(found.ravel(), row * side + column)
    low, high = float(others.min(initial=1.0)), float(others.max(initial=-1.0))
    scaled = np.clip((found - low) / max(high - low, 1e-6), 0, 1)
    stops = np.linspace(0, 1, len(_COLOURS))
    colours = np.stack([np.interp(scaled, stops, _COLOURS[:, c]) for c in range(3)], axis=-1)
    # In grey, so that all colour is likeness.
    base = shown_picture(image).convert("L").convert("RGB")
    size = base.size
    heat = Image.fromarray(colours.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    shown = Image.blend(base, heat, _OPACITY)
    box = (
        *(column * size[0] / side, row * size[1] / side),
        *((column + 1) * size[0] / side - 1, (row + 1) * size[1] / side - 1),
    )
    ImageDraw.Draw(shown).rectangle(box, outline=(255, 255, 255), width=3)
    return shown


def _patch(place: tuple[float, float], side: int) -> tuple[int, int]:
    """Row and column of the patch at x and y."""
    row, column = (min(side - 1, max(0, int(at * side))) for at in (place[1], place[0]))
    return row, column
