"""The proof of a tower, on its own weights: no tile sees another, and patch tokens are the
patches in order.

It costs the forward pass of eleven tiles in fp32. Only what a tower does counts, not how it is
made.
"""

from __future__ import annotations

import torch

from sailvit.core.errors import ModelError
from sailvit.models.guards.errors import FOREIGN, ForeignErrors
from sailvit.models.guards.untouched import untouched
from sailvit.models.towers.tower import Tower

_EQUAL = 1e-5
"""Largest relative difference of features between batches of one shape, whose sums run in the
same order."""
_CLOSE = 1e-3
"""The same between batches of different shapes, whose sums run in another order in every
block."""
_CLEAR = 3.0
"""How many times more than the expected token another one has to change with a patch, to call
the order wrong."""


def prove_tiles(tower: Tower) -> None:
    """Try `tower` on a few tiles, and set whether it runs in batches or tile by tile and at
    which token its patches begin.

    What is unusual about the result is in `tower.notes` afterwards.

    Raises:
        ModelError: it gives other features for the same tile each time, or tokens that are not
            its patches.
    """
    name = tower.model.config.model_type
    tiles, other = _tiles(tower)
    with untouched(tower), ForeignErrors(f"the tower ({name}) cannot run on its tiles"):
        found = _in_batches(tower, tiles, other)
        if found is None:
            found = _alone(tower, tiles, name)
        order = _offset(tower, found, tiles)
        seen = torch.stack([tiles[0], tiles[3], other])
        mixes = _training_mixes(tower, seen, found[[0, 3]])
    _settle_order(tower, order, name)
    if mixes:
        tower.still = True
        tower.notes += (
            "the tower's tiles see each other, or lose tokens, in training mode (batch norm,"
            " patches dropped): it always runs in evaluation mode",
        )
        tower.train(tower.training)


def changed_patches(side: int) -> tuple[int, ...]:
    """Two patches that no other order (columns, windows) has at the same two places; none in a
    grid of one patch.
    """
    return () if side < 2 else (side - 1, side)


def _tiles(tower: Tower) -> tuple[torch.Tensor, torch.Tensor]:
    """Tiles uint8[4, C, H, W]: one, the same with one patch changed, the same with another
    patch changed, and a second tile; and a third tile uint8[C, H, W].
    """
    size, patch = tower.preprocessing.size, tower.patch
    noise = torch.randint(
        0,
        256,
        (3, len(tower.preprocessing.mean), size, size),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    ).to(tower.mean.device)
    tiles = noise[[0, 0, 0, 1]].clone()
    for index, place in enumerate(changed_patches(tower.side), start=1):
        # Opposite colours: the largest change that a patch can have at every pixel at once.
        row, column = place // tower.side * patch, place % tower.side * patch
        tiles[index, :, row : row + patch, column : column + patch] ^= 255
    return tiles, noise[2]


def _in_batches(tower: Tower, tiles: torch.Tensor, other: torch.Tensor) -> torch.Tensor | None:
    """All tokens float[4, N, D], read as one batch; None where its tiles see each other."""
    try:
        found = tower.tokens(tiles)
        again = tower.tokens(torch.cat([tiles[:3], other[None]]))
    except FOREIGN:
        return None  # one tile at a time may still do, and says what is wrong if not
    alone = tower.tokens(tiles[3:])
    if found.shape != (len(tiles), *alone.shape[1:]):
        return None
    apart = _differs(found[:3], again[:3]) <= _EQUAL and _differs(found[3:], alone) <= _CLOSE
    return found if apart else None


def _alone(tower: Tower, tiles: torch.Tensor, name: str) -> torch.Tensor:
    """All tokens float[4, N, D], tile by tile; the tower runs so from now on."""
    tower.alone = True
    found, again = tower.tokens(tiles), tower.tokens(tiles[:1])
    if not bool(found.isfinite().all()):
        raise ModelError(
            f"the tower ({name}) gives features that are not finite for a tile of noise; its"
            " weights are damaged: use another copy of the checkpoint"
        )
    if _differs(found[:1], again) > _EQUAL:
        raise ModelError(
            f"the tower ({name}) gives other features for the same tile each time, so something in"
            " it is drawn at random, such as the masks and the order of patches of a masked"
            " autoencoder; expected features that follow from the tile alone: choose another tower"
        )
    tower.notes += (
        f"the tower ({name}) mixes the tiles of a batch, so it runs tile by tile; each image costs"
        " one more call per tile",
    )
    return found


def _offset(tower: Tower, found: torch.Tensor, tiles: torch.Tensor) -> int | None:
    """How many tokens precede the patches, judged by which token changes with a patch; None
    when that is not clear.

    Raises:
        ModelError: tokens clearly change in an order that no number of tokens before the
            patches explains.
    """
    places = changed_patches(tower.side)
    if not places:
        return tower.prefix
    moved = (found[1:3] - found[0]).norm(dim=-1)
    # Relative to the token's change with the other patch: a token that always changes says
    # nothing. The mean in the divisor keeps tokens that hardly change from large quotients.
    other = moved.flip(0)
    answer = moved / (other + other.mean(dim=1, keepdim=True)).clamp_min(1e-12)
    first = answer.argmax(dim=1)
    offsets = {int(token) - place for token, place in zip(first, places, strict=True)}
    expected = torch.tensor(places, device=answer.device) + tower.prefix
    if len(offsets) == 1 and 0 <= min(offsets) <= found.shape[1] - tower.patches:
        return min(offsets)
    row = torch.arange(2, device=answer.device)
    clear = (answer[row, first] > _CLEAR * answer[row, expected]) | (first == expected)
    if bool(clear.all()) and bool((first != expected).any()):
        at = [f"({place // tower.side}, {place % tower.side})" for place in places]
        raise ModelError(
            f"the tower ({tower.model.config.model_type}) does not give one token per patch, row by"
            f" row: a change of patch {at[0]} moves token {int(first[0])} most, of patch {at[1]}"
            f" token {int(first[1])}; expected {int(expected[0])} and {int(expected[1])}. Choose a"
            " tower whose tokens are its patches in order"
        )
    return None


def _settle_order(tower: Tower, offset: int | None, name: str) -> None:
    if offset is None or offset == tower.prefix:
        return
    counted = tower.prefix
    tower.begin_patches(offset)
    tower.notes += (
        f"the tower ({name}) has {counted} tokens besides its patches, {offset} before and"
        f" {counted - offset} after them, as changing patches shows; they are left out",
    )


def _training_mixes(tower: Tower, tiles: torch.Tensor, calm: torch.Tensor) -> bool:
    """Whether the first tile's tokens depend on the second, or are fewer, in training mode.

    Noise of the tower's own, such as dropped paths, is drawn alike each time and is no fault.

    Args:
        tower: The tower, in any mode; it is left in training mode.
        tiles: Two tiles and another second one, uint8[3, C, H, W].
        calm: Tokens float[2, N, D] of the first two in evaluation mode.
    """
    tower.train()

    def seeded(rows: torch.Tensor) -> torch.Tensor:
        """All tokens of `rows`, with the same noise every time."""
        torch.manual_seed(0)
        return tower.tokens(rows)

    found = seeded(tiles[:2])
    if found.shape != calm.shape:
        return True
    if _differs(found, calm) <= _CLOSE:
        return False
    return _differs(seeded(tiles[[0, 2]])[:1], found[:1]) > _EQUAL


def _differs(found: torch.Tensor, expected: torch.Tensor) -> float:
    """How much features differ, by the tile that differs most, as a share of their norm."""
    if found.shape != expected.shape:
        return float("inf")
    distance = (found - expected).flatten(1).norm(dim=1)
    return float((distance / expected.flatten(1).norm(dim=1).clamp_min(1e-12)).max())
