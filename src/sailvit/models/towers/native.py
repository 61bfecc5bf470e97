"""Images in native resolution through a tower: each is one picture of its own grid of patches.

The data side hands over tiles of `merge` x `merge` patches, each of which becomes one visual
token, so every connector sees the same square neighbourhoods as in fixed resolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING

import torch

from sailvit.core.batch import Grids
from sailvit.core.tiles import joined

if TYPE_CHECKING:
    from sailvit.models.towers.tower import Tower


def native_features(tower: Tower, tiles: torch.Tensor, grids: Grids) -> torch.Tensor:
    """Patch features float[I, P, D] of tiles uint8[I, C, H, W] that are, image by image, grids of
    so many rows and columns.

    Images of equal grids share a call, as one batch; position embeddings are those of the grid.
    """
    merge = tiles.shape[-1] // tower.patch
    made, order = [], []
    for grid, places, pictures in by_grid(tiles, grids):
        made.append(into_tiles(tower.patch_features(pictures), grid, merge))
        order.append(places)
    return in_order(made, order)


def by_grid(
    tiles: torch.Tensor, grids: Grids
) -> Iterator[tuple[tuple[int, int], list[int], torch.Tensor]]:
    """Every grid with the places of its images' tiles, and these images, uint8[M, C, H, W]."""
    ends = list(accumulate((rows * columns for rows, columns in grids), initial=0))
    alike: dict[tuple[int, int], list[int]] = {}
    for image, grid in enumerate(grids):
        alike.setdefault(grid, []).append(image)
    for grid, images in alike.items():
        places = [place for image in images for place in range(ends[image], ends[image + 1])]
        yield grid, places, joined(tiles[torch.tensor(places, device=tiles.device)], grid)


def in_order(made: Sequence[torch.Tensor], places: Sequence[Sequence[int]]) -> torch.Tensor:
    """float[I, P, D] in the order of the tiles, from those at the given places, group by group."""
    order = torch.tensor(list(chain.from_iterable(places)), device=made[0].device)
    return torch.cat(tuple(made)).index_select(0, order.argsort())


def into_tiles(features: torch.Tensor, grid: tuple[int, int], merge: int) -> torch.Tensor:
    """Features float[I, P, D] of tiles of `merge` x `merge` patches, from float[M, N, D] of the
    patches of whole pictures, row by row.
    """
    (rows, columns), width = grid, features.shape[-1]
    cells = features.reshape(-1, rows, merge, columns, merge, width)
    return cells.permute(0, 1, 3, 2, 4, 5).reshape(-1, merge**2, width)
