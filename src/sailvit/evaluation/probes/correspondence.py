"""Correspondence: whether a patch is found again in a turned, scaled and shifted view of the same
picture. The warp is known, so no labels are needed and nothing is trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import nn

from sailvit.core.bad_records import BadRecord
from sailvit.core.errors import DataError
from sailvit.core.seeding import numpy_generator
from sailvit.data.process_pool import in_order
from sailvit.distributed.processes import gather_objects, rank, world
from sailvit.evaluation.probes.features.extraction import Seen, load_tile
from sailvit.evaluation.probes.results import Outcome
from sailvit.evaluation.probes.sets.labelled import Images
from sailvit.models.towers.tower import Tower

NEAR = (0.1, 0.05)
"""Distances, in sides of the picture, up to which a match is right; towers are compared in the
first."""
_MOVED = 2 * NEAR[0]
"""Least distance, in sides, that a patch has moved to count: a tower that knows places and nothing
else is then never right."""
_TURN = math.pi / 4
_SCALE = (0.7, 1.4)
_SHIFT = 0.4
"""Most that a view is turned, in radians; least and most that it is scaled; most that it is
shifted, in half sides."""


@dataclass(frozen=True)
class Warp:
    """An affine map of a view's places, from -1 to 1, to those of the picture."""

    matrix: torch.Tensor
    """float[2, 3], as `torch.nn.functional.affine_grid` takes it."""

    @staticmethod
    def drawn(seed: int, position: int) -> Warp:
        """The warp of the image at `position`."""
        rng = numpy_generator(seed, "probe", "warp", position)
        angle = rng.uniform(-_TURN, _TURN)
        scale = math.exp(rng.uniform(math.log(_SCALE[0]), math.log(_SCALE[1])))
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        across, down = rng.uniform(-_SHIFT, _SHIFT, 2)
        return Warp(torch.tensor([[cos, -sin, across], [sin, cos, down]], dtype=torch.float32))

    def view(self, tile: torch.Tensor) -> torch.Tensor:
        """uint8[1, C, H, W]: the view of a tile uint8[1, C, H, W]; what lies outside is black."""
        grid = nn.functional.affine_grid(self.matrix[None], list(tile.shape), align_corners=False)
        seen = nn.functional.grid_sample(tile.float(), grid, mode="bilinear", align_corners=False)
        return seen.round().clamp(0, 255).to(torch.uint8)

    def in_view(self, places: torch.Tensor) -> torch.Tensor:
        """float[N, 2]: where places float[N, 2] of the picture are in the view."""
        moved = places - self.matrix[:, 2]
        # The matrix leads from the view to the picture, as sampling wants it; this is the way back.
        found: torch.Tensor = torch.linalg.solve(self.matrix[:, :2], moved.T).T
        return found


@dataclass(frozen=True)
class ImageSet:
    """Images without labels."""

    name: str
    """Name of the data."""
    images: Images
    """The images."""
    notes: tuple[str, ...] = ()
    """What should be told."""


@torch.inference_mode()
def correspondence(
    tower: Tower,
    found: ImageSet,
    layers: Sequence[int],
    *,
    batch: int,
    threads: int,
    seed: int,
    seen: Seen,
) -> tuple[list[Outcome], int]:
    """Shares of patches that are found again, of every layer, and the number of images that cannot
    be decoded.

    `tower` gives the layers side by side. Processes share the images.

    Raises:
        DataError: there are no images, or none can be decoded.
    """
    mine = range(rank(), len(found.images), world())
    counts: dict[int, np.ndarray] = {}
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        load = partial(pool.submit, partial(load_tile, found.images, found.name, tower))
        # Decoding runs ahead, but not without end: tiles that wait take memory, and a set would not
        # fit.
        loaded = in_order(load, Future.result, mine, most=3 * batch)
        tiles: Iterator[tuple[int, torch.Tensor | BadRecord]] = zip(mine, loaded, strict=True)
        while block := list(islice(tiles, batch)):
            shown = {at: tile for at, tile in block if isinstance(tile, torch.Tensor)}
            counts.update(_matched(tower, shown, len(layers), seed))
            seen(mine.index(block[-1][0]) + 1, len(mine))
    # By position and not in the order of processes: the table is the same for any number of them.
    merged = {place: each for share in gather_objects(counts) for place, each in share.items()}
    if not merged:
        raise DataError(f"no image of {found.name} can be decoded; expected one at least")
    # Images N, layers, and of each the patches that count and the right ones at every distance.
    table = np.stack([merged[place] for place in sorted(merged)])
    outcomes = [
        Outcome(
            "correspondence",
            layer,
            found.name,
            f"PCK@{near:g}",
            hits=table[:, at, 1 + index],
            possible=table[:, at, 0],
            main=index == 0,
        )
        for at, layer in enumerate(layers)
        for index, near in enumerate(NEAR)
    ]
    return outcomes, len(found.images) - len(merged)


def _matched(
    tower: Tower, tiles: dict[int, torch.Tensor], layers: int, seed: int
) -> dict[int, np.ndarray]:
    """float32[layers, 1 + distances] of every tile uint8[1, C, H, W], by its position."""
    if not tiles:
        return {}
    warps = {position: Warp.drawn(seed, position) for position in tiles}
    views = [warps[position].view(tile) for position, tile in tiles.items()]
    batch = torch.cat([*tiles.values(), *views]).to(tower.mean.device)
    centres = patch_centres(tower.side)
    parts = tower(batch).float().chunk(layers, dim=-1)
    count = len(tiles)
    return {
        position: np.stack(
            [_found(part[[index, count + index]], warps[position], centres) for part in parts]
        )
        for index, position in enumerate(tiles)
    }


def patch_centres(side: int) -> torch.Tensor:
    """float[P, 2]: across and down, from -1 to 1, row by row."""
    axis = (torch.arange(side) + 0.5) * 2 / side - 1
    down, across = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([across.flatten(), down.flatten()], dim=-1)


def _found(features: torch.Tensor, warp: Warp, centres: torch.Tensor) -> np.ndarray:
    """float32[1 + distances]: patches that are in the view and have moved, and those found at every
    distance, by features float[2, P, D] of picture and view.
    """
    places = warp.in_view(centres)
    moved = (places - centres).norm(dim=-1) / 2 > _MOVED
    # A patch that the warp puts outside of the view cannot be found there, by any tower.
    counts = (places.abs() < 1).all(dim=-1) & moved
    one, two = nn.functional.normalize(features, dim=-1)
    # On the CPU from here: places are few, and cosines are not.
    nearest = (one @ two.T).argmax(dim=-1).cpu()
    # Places go from -1 to 1, so two of them are a side.
    off = (centres[nearest] - places).norm(dim=-1) / 2
    right = [((off <= near) & counts).sum() for near in NEAR]
    return np.array([counts.sum(), *right], dtype=np.float32)
