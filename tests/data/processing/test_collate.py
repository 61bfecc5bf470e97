"""Packs lose nothing, mix nothing and waste little."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sailvit.core.records import Sample
from sailvit.data.processing.collate import collate

PLACEHOLDER = 3


def sample(
    name: str, length: int, *, images: tuple[int, ...] = (), caption: bool = False
) -> Sample:
    """A sample with `images` tiles per image (one placeholder each), whose later half is the answer."""
    tiles = sum(images)
    tokens = torch.arange(length) + 1000 * (1 + int(name))
    tokens[:tiles] = PLACEHOLDER
    labels = torch.full((length,), -100)
    begin = max(length // 2, tiles, 1)
    labels[begin - 1 : length - 1] = tokens[begin:]
    return Sample(
        name,
        tokens,
        labels,
        torch.full((tiles, 3, 2, 2), int(name) % 256, dtype=torch.uint8),
        torch.arange(len(images)).repeat_interleave(torch.tensor(images, dtype=torch.int64)),
        caption,
    )


samples = st.lists(
    st.tuples(
        st.integers(8, 40), st.lists(st.integers(1, 3), max_size=2).map(tuple), st.booleans()
    ),
    max_size=30,
).map(
    lambda drawn: [
        sample(str(index), length, images=images, caption=caption and len(images) == 1)
        for index, (length, images, caption) in enumerate(drawn)
    ]
)


@given(samples, st.integers(1, 4), st.sampled_from([None, 64]))
@settings(deadline=None, max_examples=60)
def test_a_batch_gives_every_sample_back_unmixed(given_samples, rows, length):
    packs = [given_samples[row::rows] for row in range(rows)]
    packs = [_fitting(pack, 64) for pack in packs]
    batch = collate(packs, length=length, padding_id=9)
    flat = {
        name: getattr(batch, name).flatten()
        for name in ("tokens", "labels", "positions", "caption_of")
    }
    bounds = batch.boundaries.tolist()
    assert bounds == sorted(set(bounds))
    assert bounds[-1] == batch.tokens.numel()
    assert batch.longest == max(end - start for start, end in pairwise(bounds))
    segments = dict(pairwise(bounds))
    width, image, tile, used = batch.tokens.shape[1], 0, 0, 0
    for row, pack in enumerate(packs):
        at = row * width
        for one in pack:
            end = segments.pop(at)
            assert flat["tokens"][at:end].equal(one.tokens)
            assert flat["labels"][at:end].equal(one.labels)
            assert flat["positions"][at:end].tolist() == list(range(len(one.tokens)))
            told = flat["caption_of"][at:end]
            answers = one.labels.roll(1) >= 0
            assert told.tolist() == [image if one.caption and answer else -1 for answer in answers]
            assert batch.tiles[tile : tile + len(one.tiles)].equal(one.tiles)
            assert batch.image_of_tile[tile : tile + len(one.tiles)].equal(
                one.image_of_tile + image
            )
            image += len(one.image_of_tile.unique())
            tile += len(one.tiles)
            used += len(one.tokens)
            at = end
    for start, end in segments.items():
        assert (flat["tokens"][start:end] == 9).all()
        assert (flat["labels"][start:end] == -100).all()
        assert start // width == (end - 1) // width
    assert batch.padding == batch.tokens.numel() - used
    assert int((batch.tokens == PLACEHOLDER).sum()) == len(batch.tiles)
    assert batch.sample_ids == tuple(one.id for pack in packs for one in pack)


def _fitting(pack, room):
    kept = []
    for one in pack:
        if len(one.tokens) <= room:
            kept.append(one)
            room -= len(one.tokens)
    return kept


def test_rows_are_as_long_as_the_longest_pack_or_as_asked():
    packs = [[sample("0", 10)], [sample("1", 7), sample("2", 8)]]
    assert collate(packs).tokens.shape == (2, 15)
    assert collate(packs, length=20).tokens.shape == (2, 20)
    with pytest.raises(ValueError, match="pack of 15 tokens does not fit rows of 12"):
        collate(packs, length=12)


def test_an_empty_pack_is_a_row_without_loss():
    batch = collate([[]], padding_id=4)
    assert batch.tokens.tolist() == [[4]]
    assert batch.answer_tokens == 0
    assert batch.captioned_images == 0
    assert len(batch.tiles) == 0
    assert batch.boundaries.tolist() == [0, 1]


def test_captioned_images_are_counted_over_the_batch():
    captions = [sample(str(index), 12, images=(1,), caption=True) for index in range(3)]
    batch = collate([[captions[0], sample("7", 9, images=(2, 1))], captions[1:]])
    assert batch.captioned_images == 3
    assert sorted(set(batch.caption_of[batch.caption_of >= 0].tolist())) == [0, 3, 4]


def test_captioned_images_have_the_id_of_their_tiles_whatever_the_layout_in_memory():
    one, two = (sample(name, 12, images=(2,), caption=True) for name in ("3", "4"))
    again = replace(one, id="5", tiles=one.tiles.contiguous(memory_format=torch.channels_last))
    chat = sample("3", 9, images=(1, 1))
    ids = collate([[one, chat], [two, again]]).image_ids
    assert ids.dtype == torch.int64
    assert len(ids) == 5
    assert ids[0] == ids[4] > 0
    assert ids[0] != ids[3] > 0
    assert ids[1:3].tolist() == [0, 0]
    assert collate([[one]]).image_ids.equal(ids[:1])
