"""How far every block of a tower has moved from another checkpoint of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sailvit.core.errors import ModelError
from sailvit.core.seeding import numpy_generator
from sailvit.data.processing.decoding import Pixels
from sailvit.evaluation.affinity.features import patch_features
from sailvit.evaluation.affinity.resampling import (
    Indices,
    Measured,
    groups_left_out,
    mean_of_items,
)
from sailvit.models.blocks import find_blocks
from sailvit.models.measures.drift import linear_cka
from sailvit.models.towers.layers import FeatureChoice
from sailvit.models.towers.tower import Tower

_BYTES = 1 << 28
"""Memory for the features of one tower: 2,700 patches of 24 blocks that are 1024 wide."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class BlockDrift:
    """One block of a tower beside the same block of its base."""

    block: int
    """Its number, from 1: `model.feature_layer` that reads behind it."""
    cka: Measured
    """Linear CKA of patch features: 1 is the same up to a rotation and a scale."""
    change: Measured
    """Length of the difference of a patch's features, as a share of the base's."""


def block_drift(
    tower: Tower, base: Tower, images: Sequence[Pixels], *, seed: int = 0
) -> list[BlockDrift]:
    """The drift of each block, on the same patches of the same images.

    The interval of CKA is a jackknife over groups of images, as redrawn patches would be copies
    of each other; by chance it is that of patches in random order. With fewer patches than a few
    times the width CKA is too high, and so is its chance.

    Raises:
        ModelError: the towers have other blocks, patches or widths.
    """
    depths = [len(find_blocks(each.model)[1]) for each in (tower, base)]
    facts = [
        (depth, each.patches, each.width) for depth, each in zip(depths, (tower, base), strict=True)
    ]
    if facts[0] != facts[1] or not depths[0]:
        raise ModelError(
            f"the towers have {depths[0]} and {depths[1]} blocks, {tower.patches} and {base.patches}"
            f" patches of width {tower.width} and {base.width}; drift needs two checkpoints of one"
            " tower"
        )
    depth = depths[0]
    share = max(1, _BYTES // (4 * depth * tower.width * len(images)))
    # Some patches of every image, rather than all of some images: neighbouring patches say the
    # same.
    rng = numpy_generator(seed, "affinity", "patches")
    chosen = [np.sort(rng.permutation(tower.patches)[:share]) for _ in images]
    ours, theirs = (_states(each, depth, images, chosen) for each in (tower, base))
    items = np.repeat(np.arange(len(images)), [len(each) for each in chosen])
    return [
        BlockDrift(
            block + 1,
            _likeness(ours[block], theirs[block], items, seed),
            _change(ours[block], theirs[block], len(images), seed),
        )
        for block in range(depth)
    ]


def _states(
    tower: Tower, depth: int, images: Sequence[Pixels], chosen: Sequence[NDArray[np.int64]]
) -> Floats:
    """float32[B, N, D]: what leaves each block, at the chosen patches of all images."""
    # Before the final norm everywhere, as the last block would otherwise be compared behind one.
    choice = FeatureChoice(tuple(range(1, depth + 1)), norm=False)
    reader = tower.around(tower.model, choice).to(tower.mean.device).eval()
    parts = []
    for image, places in zip(images, chosen, strict=True):
        # One image at a time: all blocks of all patches of 64 images would take gigabytes.
        (features,) = patch_features(reader, [image])
        parts.append(features[places].reshape(len(places), depth, -1).transpose(1, 0, 2))
    return np.concatenate(parts, axis=1)


def _likeness(ours: Floats, theirs: Floats, items: Indices, seed: int) -> Measured:
    sides = [torch.from_numpy(side) for side in (ours, theirs)]
    value = linear_cka(*sides)
    order = numpy_generator(seed, "affinity", "drift").permutation(len(ours))
    chance = linear_cka(sides[0], sides[1][torch.from_numpy(order)])
    # Whole images are left out together, as patches of one image are not independent.
    low, high = groups_left_out(
        value, items, lambda kept: linear_cka(*(side[torch.from_numpy(kept)] for side in sides))
    )
    return Measured(value, low, high, chance, int(items[-1]) + 1)


def _change(ours: Floats, theirs: Floats, count: int, seed: int) -> Measured:
    moved = np.linalg.norm((ours - theirs).astype(np.float64), axis=1)
    share = moved / (np.linalg.norm(theirs.astype(np.float64), axis=1) + 1e-30)
    return mean_of_items(
        share.reshape(count, -1).mean(axis=1), numpy_generator(seed, "affinity", "change")
    )
