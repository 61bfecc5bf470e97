"""Features of all images of a set and of all chosen layers, from one pass of the tower.

Images are decoded by threads while the tower computes, and the results of a batch are fetched
while the next one runs. What is done is known image by image: a killed extraction goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch

from sailvit.core.bad_records import UNUSABLE, BadRecord, bad_record
from sailvit.core.errors import DataError, ModelError
from sailvit.core.layout import VisualLayout
from sailvit.data.process_pool import in_order
from sailvit.data.processing.images import load_image, tile_image
from sailvit.distributed.processes import barrier, gather_objects, rank, world
from sailvit.evaluation.probes.features.store import (
    DONE,
    FAILED,
    MEANS,
    TODO,
    TOKENS,
    FeatureStore,
    Shape,
)
from sailvit.evaluation.probes.sets.labelled import Images
from sailvit.models.towers.tower import Tower

_VERSION = 1
"""Part of every key; another number where features would be others for the same key."""
_AHEAD = 3
"""Batches of images that are decoded before the tower needs them."""
_LARGEST = float(np.finfo(np.float16).max)

Seen = Callable[[int, int], None]
"""Takes the number of images done, and of all."""


@dataclass(frozen=True)
class Extraction:
    """How features are computed and what of them is kept."""

    cache: Path
    """Folder that holds a folder for each tower and set."""
    layers: tuple[int, ...]
    """Layers, counted from 1; the tower was made to give them side by side."""
    tokens: bool = False
    """Whether the features of all patches are kept, and not their means alone."""
    batch: int = 64
    """Images that the tower takes at once."""
    threads: int = max(1, (os.cpu_count() or 1) - 1)
    """Threads that decode images."""


@dataclass(frozen=True)
class Extracted:
    """Features of a set, and what was left out."""

    store: FeatureStore
    """The features."""
    kept: np.ndarray
    """int64[M]: positions of the images whose features are there."""
    bad: tuple[BadRecord, ...]
    """Images that could not be decoded; known to this call for those it found itself."""


def extract(
    tower: Tower,
    images: Images,
    name: str,
    settings: Extraction,
    *,
    key: str,
    seen: Seen = lambda done, total: None,
) -> Extracted:
    """Features of every image of the set `name`, from the cache where they are there.

    `tower` gives the layers of `settings` side by side; `key` is its hash. With several processes
    each computes a share.

    Raises:
        DataError: there are no images, or none of them can be decoded.
    """
    if not len(images):
        raise DataError(f"set {name} has no images; expected one at least")
    width = tower.width // len(settings.layers)
    shape = Shape(len(images), settings.layers, tower.patches, width, settings.tokens)
    # All that decides the numbers and nothing else: another batch size or number of threads
    # must not cost the whole set again.
    facts = (_VERSION, key, images.fingerprint, tower.preprocessing.size, shape)
    label = blake2b(repr(facts).encode(), digest_size=8).hexdigest()
    store = FeatureStore(settings.cache / label, shape)
    if rank() == 0:
        store.create()
    barrier()
    bad = list(_fill(tower, images, name, settings, store, seen=seen))
    barrier()
    found = tuple(each for listed in gather_objects(bad) for each in listed)
    kept = np.flatnonzero(store.states == DONE)
    if not len(kept):
        reason = f": {found[0].reason}" if found else ""
        raise DataError(f"no image of set {name} can be decoded{reason}")
    return Extracted(store, kept, found)


def _fill(
    tower: Tower,
    images: Images,
    name: str,
    settings: Extraction,
    store: FeatureStore,
    *,
    seen: Seen,
) -> Iterator[BadRecord]:
    """Compute what is missing of this process's share; yields what cannot be decoded."""
    states, size = store.states, settings.batch
    # Blocks and not images are dealt out: rows of a file are then written in one piece each.
    blocks = [range(at, min(at + size, len(images))) for at in range(0, len(images), size)]
    mine = [block for block in blocks[rank() :: world()] if (states[block] == TODO).any()]
    load = partial(load_tile, images, name, tower)
    done, total = 0, sum(map(len, mine))
    with ThreadPoolExecutor(settings.threads, thread_name_prefix="decode") as pool:
        tiles = in_order(
            partial(pool.submit, load),
            Future.result,
            (place for block in mine for place in block),
            most=_AHEAD * size,
        )
        for block, made, failed in _computed(tower, mine, tiles, settings):
            _write(store, block, made, failed)
            yield from failed
            done += len(block)
            seen(done, total)


Loaded = torch.Tensor | BadRecord
_Computed = tuple[range, list[tuple[torch.Tensor, torch.Tensor | None]], list[BadRecord]]


def load_tile(images: Images, name: str, tower: Tower, position: int) -> Loaded:
    """The tile uint8[1, C, H, W] of an image, or why there is none."""
    layout = VisualLayout(tower.preprocessing.size, tower.patches, 0, "", max_tiles=1)
    try:
        return tile_image(load_image(images.image(position)), layout)
    except UNUSABLE as error:
        return bad_record(name, position, error)


@torch.inference_mode()
def _computed(
    tower: Tower, blocks: list[range], tiles: Iterator[Loaded], settings: Extraction
) -> Iterator[_Computed]:
    """Features of blocks, each one block late: the device computes while they are fetched."""
    waiting: _Computed | None = None
    for block in blocks:
        loaded = [next(tiles) for _ in block]
        failed = [each for each in loaded if isinstance(each, BadRecord)]
        # A blank picture in its place keeps the block's rows where the file wants them.
        blank = torch.zeros(1, 3, *(tower.preprocessing.size,) * 2, dtype=torch.uint8)
        batch = torch.cat([blank if isinstance(each, BadRecord) else each for each in loaded])
        features = tower(batch.to(tower.mean.device, non_blocking=True))
        made = []
        for states in features.chunk(len(settings.layers), dim=-1):
            # In float32: bf16 would round the mean of a thousand patches to 8 bits.
            means = states.mean(dim=1, dtype=torch.float32)
            made.append((means, states if settings.tokens else None))
        if waiting is not None:
            yield waiting
        waiting = (block, made, failed)
    if waiting is not None:
        yield waiting


def _write(
    store: FeatureStore,
    block: range,
    made: list[tuple[torch.Tensor, torch.Tensor | None]],
    failed: list[BadRecord],
) -> None:
    for layer, (means, tokens) in zip(store.shape.layers, made, strict=True):
        store.write(f"{MEANS}-{layer}", block.start, means.cpu().numpy())
        if tokens is not None:
            store.write(f"{TOKENS}-{layer}", block.start, _halved(tokens, layer))
    states = np.full(len(block), DONE, dtype=np.uint8)
    for each in failed:
        states[(each.position or 0) - block.start] = FAILED
    # Last, so that what they say is true whenever the process is killed.
    store.write("states", block.start, states)


def _halved(tokens: torch.Tensor, layer: int) -> np.ndarray:
    """float16[I, P, D] of patch features float[I, P, D]."""
    largest = float(tokens.abs().amax())
    # So written, NaN is refused too; infinity in float16 would only show as a head that learns
    # nothing.
    if not largest < _LARGEST:
        raise ModelError(
            f"patch features after layer {layer} reach {largest:g}, and float16 ends at"
            f" {_LARGEST:g}; choose other layers with --layers, or probes of mean features:"
            " --probe mlp --probe linear --probe knn"
        )
    return tokens.to(torch.float16).cpu().numpy()
