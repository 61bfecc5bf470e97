"""The proof that a tower takes native resolution, on its own weights: it runs on grids of any
rows and columns, patch tokens are the patches in order, and no image sees another.

It costs the forward pass of a few small images. A family is never taken at its name.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sailvit.core.errors import ModelError
from sailvit.models.guards.errors import FOREIGN, short_reason
from sailvit.models.guards.untouched import untouched
from sailvit.models.towers.native import native_features
from sailvit.models.towers.native_row import RowReader
from sailvit.models.towers.position_table import position_lookup
from sailvit.models.towers.tower import Tower

_WIDE, _TALL = (2, 3), (3, 1)
"""Rows and columns of the proof's images, in tiles. Neither is square, so that rows and columns
cannot be mixed up unseen, and no square has as many patches as one of them."""
_EQUAL = 1e-5
"""Largest relative difference of features between calls of one shape, whose sums run in the same
order."""
_CLOSE = 1e-3
"""The same between calls of different shapes."""
_CLEAR = 3.0
"""How many times more than the expected patch another one has to change with it, to call the
order wrong."""


def prove_native(tower: Tower, merge: int) -> None:
    """Try `tower` on images of several grids of tiles of `merge` x `merge` patches, and set how it
    comes by its position embeddings.

    Raises:
        ModelError: it takes no other grid than its own square one, or images see each other.
    """
    name = tower.model.config.model_type
    wide, other, tall = (_image(tower, merge, grid, seed) for seed, grid in _IMAGES)
    with untouched(tower):
        alone = [_features(tower, [wide], [_WIDE], name), _features(tower, [tall], [_TALL], name)]
        grids = (_WIDE, _TALL, _WIDE)
        together = _features(tower, [wide, tall, other], grids, name)
        # Every pixel of the third image is changed, and the first two must not notice.
        again = _features(tower, [wide, tall, 255 - other], grids, name)
        _check_apart(together, again, alone, name)
        _check_order(tower, merge, wide, alone[0], name)


def row_reader(tower: Tower, merge: int) -> RowReader | None:
    """What reads all images of a batch as one packed row, for a tower whose features it does not
    change; None for others, such as those with rotary positions of one grid.
    """
    if tower.alone:
        return None
    with untouched(tower):
        try:
            reader = RowReader(tower)
        except ModelError:
            return None
        if _same_in_a_row(tower, merge, reader):
            return reader
        reader.undo()
        return None


def _same_in_a_row(tower: Tower, merge: int, reader: RowReader) -> bool:
    wide, other, tall = (_image(tower, merge, grid, seed) for seed, grid in _IMAGES)
    grids, size = (_WIDE, _TALL, _WIDE), len(wide) + len(tall)
    tiles = torch.cat([wide, tall, other])
    try:
        found = reader(tower, tiles, grids)
        again = reader(tower, torch.cat([wide, tall, 255 - other]), grids)
    except ModelError:
        return False
    except FOREIGN:
        return False
    expected = native_features(tower, tiles, grids)
    return (
        _differs(found, expected) <= _CLOSE
        and _differs(again[:size], found[:size]) <= _EQUAL
        and found.shape == expected.shape
    )


_IMAGES = ((0, _WIDE), (1, _WIDE), (2, _TALL))
"""Seed and grid of each image."""


def _image(tower: Tower, merge: int, grid: tuple[int, int], seed: int) -> torch.Tensor:
    """An image of noise as tiles uint8[I, C, H, W]."""
    size, (rows, columns) = tower.patch * merge, grid
    channels = len(tower.preprocessing.mean)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(
        0, 256, (rows * columns, channels, size, size), dtype=torch.uint8, generator=generator
    )
    return noise.to(tower.mean.device)


def _features(
    tower: Tower,
    images: Sequence[torch.Tensor],
    grids: Sequence[tuple[int, int]],
    name: str,
) -> torch.Tensor:
    """Features float[I, P, D] of the images' tiles; where positions of one size only stand in the
    way, the tower resizes them from now on.

    Raises:
        ModelError: the tower does not run on these grids.
    """
    tiles = torch.cat(list(images))
    try:
        return native_features(tower, tiles, tuple(grids))
    except FOREIGN as error:
        table = position_lookup(tower.model, tower.patches)
        if table is None or tower.table is not None:
            raise ModelError(_refusal(name, short_reason(error))) from error
    tower.table = table
    return _features(tower, images, grids, name)


def _check_apart(
    together: torch.Tensor, again: torch.Tensor, alone: Sequence[torch.Tensor], name: str
) -> None:
    first, second = len(alone[0]), len(alone[0]) + len(alone[1])
    off = max(
        _differs(together[:first], alone[0]) / _CLOSE,
        _differs(together[first:second], alone[1]) / _CLOSE,
        _differs(again[:second], together[:second]) / _EQUAL,
    )
    if not off <= 1:
        raise ModelError(_refusal(name, "the images of a batch change each other's features"))


def _check_order(
    tower: Tower, merge: int, image: torch.Tensor, plain: torch.Tensor, name: str
) -> None:
    """Refuse a tower that clearly gives the patches of a wide image in another order.

    Two patches are changed in turn: the last of the first row of tiles and the first of the last.
    """
    places = (_WIDE[1] * merge**2 - 1, _WIDE[1] * merge**2)
    moved = []
    for place in places:
        changed = image.clone()
        row, column = divmod(place % merge**2, merge)
        at = (slice(row * tower.patch, (row + 1) * tower.patch),)
        across = slice(column * tower.patch, (column + 1) * tower.patch)
        changed[place // merge**2, :, at[0], across] ^= 255
        features = _features(tower, [changed], [_WIDE], name)
        moved.append((features - plain).norm(dim=-1).flatten())
    for place, own, others in zip(places, moved, reversed(moved), strict=True):
        # Relative to its change with the other patch: a token that always changes says nothing.
        answer = own / (others + others.mean()).clamp_min(1e-12)
        most = int(answer.argmax())
        if most != place and bool(answer[most] > _CLEAR * answer[place]):
            raise ModelError(
                _refusal(name, f"in a wide image patch {place} moves the token of patch {most}")
            )


def _differs(found: torch.Tensor, expected: torch.Tensor) -> float:
    """How much features differ, as a share of their norm."""
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))


def _refusal(name: str, why: str) -> str:
    return (
        f"the tower ({name}) cannot take images in native resolution: {why}; set model.image.mode"
        " to fixed or tiled, or choose another tower"
    )
