"""Shared memory: batches come out as they went in, slots are used again, and never while anybody looks."""

from __future__ import annotations

import gc
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch

from sailvit.core.layout import VisualLayout
from sailvit.core.records import Sample
from sailvit.data.loading.reader import LoadedBatch
from sailvit.data.loading.shared_memory import SharedMemory
from sailvit.data.processing.collate import collate
from sailvit.data.processing.images import join_tiles
from sailvit.data.processing.processor import Tiler

SIZE = 100_000


def batch(value: int = 1, tiles: int = 3, space: torch.Tensor | None = None):
    """Two rows of two samples and of none; with `space` their tiles are made there."""
    place = Tiler(VisualLayout(8, 1, 0, ""), space)
    images = [np.full((8, 8, 3), (value + number) % 256, np.uint8) for number in range(2 * tiles)]
    cuts = (
        [join_tiles([*map(place, images[:tiles])]), join_tiles([*map(place, images[tiles:])])]
        if tiles
        else []
    )
    samples = [
        Sample(
            id=f"s/{value}",
            tokens=torch.arange(20) + value,
            labels=torch.arange(20),
            tiles=cuts[number] if cuts else torch.zeros(0, 3, 8, 8, dtype=torch.uint8),
            image_of_tile=torch.arange(tiles),
            caption=tiles == 1,
        )
        for number in range(2)
    ]
    return collate([samples, []], padding_id=9)


def same(first, second) -> bool:
    return all(
        value.equal(getattr(second, name)) and value.dtype == getattr(second, name).dtype
        if isinstance(value, torch.Tensor)
        else value == getattr(second, name)
        for name, value in vars(first).items()
    )


@pytest.mark.parametrize("tiles", [0, 1, 3])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_batch_comes_out_as_it_went_in(tiles, in_place):
    memory = SharedMemory(1, SIZE)
    slot = memory.claim()
    made = batch(7, tiles, memory.space(slot) if in_place else None)
    assert not tiles or (made.tiles.data_ptr() == memory.space(slot).data_ptr()) == in_place
    found = memory.put(slot, made).batch()
    assert same(found, batch(7, tiles))


def test_what_goes_through_the_pipe_is_small_and_finds_its_shelf():
    memory = SharedMemory(1, 10_000_000)
    shared = memory.put(memory.claim(), batch(5, tiles=1000))
    sent = bytes(ForkingPickler.dumps(LoadedBatch(shared, {"s": 1}, ())))
    assert len(sent) < 2000
    assert same(ForkingPickler.loads(sent).batch, batch(5, tiles=1000))


def test_a_slot_is_free_when_the_last_look_at_it_has_ended():
    memory = SharedMemory(2, SIZE)
    first, second = memory.claim(), memory.claim()
    assert memory.claim() is None
    held = memory.put(first, batch(1)).batch()
    row = held.tiles[0, 0]
    del held
    gc.collect()
    assert memory.claim() is None, "a view of a view still looks"
    memory.space(second).zero_()
    assert row.eq(1).all()
    del row
    gc.collect()
    assert memory.claim() == first
    assert memory.claim() is None


def test_what_autograd_keeps_is_not_written_over():
    memory = SharedMemory(1, SIZE)
    weight = torch.ones(64, 4, requires_grad=True)
    taken = memory.put(memory.claim(), batch(1)).batch()
    loss = torch.nn.functional.embedding(taken.tokens, weight).sum()
    del taken
    gc.collect()
    assert memory.claim() is None
    loss.backward()
    assert weight.grad[2].eq(2).all()
    del loss
    gc.collect()
    assert memory.claim() == 0


def test_a_batch_too_large_for_its_slot_is_an_error_and_not_a_cut():
    memory = SharedMemory(1, 200)
    with pytest.raises(ValueError, match="must not be greater"):
        memory.put(memory.claim(), batch(1))


def test_pages_are_taken_when_they_are_touched():
    def private() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = private()
    memory = SharedMemory(20, 1 << 30)
    assert private() - before < 50_000_000
    assert same(memory.put(19, batch(3)).batch(), replace(batch(3)))
