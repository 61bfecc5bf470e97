"""The loader: exact resume, the same packs on any number of ranks and workers, and honest errors."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import time
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from sailvit.core.errors import DataError
from sailvit.core.records import Record, Turn
from sailvit.data.feed import Feed
from sailvit.data.loader import Loader
from sailvit.data.samples import SampleBuilder

WORDS = ["what", "colour", "is", "the", "large", "red", "blue", "circle", "left", "of", "small", "square"]


class Memory:
    """Records made from their position."""

    fingerprint = "memory"

    def __init__(self, size, *, broken=None, images=True):
        self.size, self.broken, self.images = size, broken, images

    def __len__(self):
        return self.size

    def __getitem__(self, position):
        if position == self.broken:
            raise DataError("its line is cut")
        source = np.random.default_rng(position)
        answer = " ".join(source.choice(WORDS, source.integers(2, 12)))
        image = self.images and position % 3 > 0
        turns = (Turn("user", "<image>" * image + "describe"), Turn("assistant", answer))
        pixels = (np.full((8, 8, 3), position % 256, np.uint8),) * image
        return Record(str(position), turns, pixels, "caption" if image else "text")


FEED = Feed(name="fine", seed=5, shares={"a": 3, "b": 1}, sequence=128, global_batch=4, micro_batch=2, samples=150)
SOURCES = {"a": Memory(40), "b": Memory(23)}


@pytest.fixture(scope="module")
def builder(chatml, layout):
    return SampleBuilder(chatml, layout, FEED.sequence)


def content(step):
    """Everything a step holds, comparable."""
    return [
        (batch.sample_ids, batch.padding, *(getattr(batch, name).tolist() for name in TENSORS))
        for batch in step.batches
    ]


TENSORS = ("tokens", "positions", "labels", "boundaries", "tiles", "image_of_tile", "caption_of")


def ids(steps):
    return [name for step in steps for batch in step.batches for name in batch.sample_ids]


def test_a_feed_draws_exactly_its_samples_in_the_given_shares(builder):
    steps = list(Loader(SOURCES, builder, FEED))
    drawn = ids(steps)
    assert len(drawn) == 150
    counts = Counter(name.split("/")[0] for name in drawn)
    assert abs(counts["a"] - 112.5) <= 1
    assert steps[-1].cursor["samples"] == 150
    assert steps[-1].cursor["steps"] == len(steps)
    tokens = sum(batch.tokens.numel() - batch.padding for step in steps for batch in step.batches)
    assert steps[-1].cursor["tokens"] == tokens


def test_blending_stays_within_one_percent(builder):
    sources = {name: Memory(300, images=False) for name in "abc"}
    feed = replace(FEED, shares={"a": 0.7, "b": 0.2, "c": 0.1}, samples=2000)
    counts = Counter(name[0] for name in ids(Loader(sources, builder, feed)))
    assert all(abs(counts[name] / 2000 - share) < 0.01 for name, share in feed.shares.items())


def test_every_record_comes_once_per_epoch(builder):
    drawn = Counter(ids(Loader({"a": SOURCES["a"]}, builder, replace(FEED, shares={"a": 1}, samples=120))))
    assert set(drawn.values()) == {3}
    assert len(drawn) == 40


def test_packs_hold_at_most_the_sequence_and_steps_the_global_batch(builder):
    steps = list(Loader(SOURCES, builder, FEED))
    assert all(batch.tokens.shape[0] == 2 and batch.tokens.shape[1] <= 128 for s in steps[:-1] for batch in s.batches)
    assert all(len(step.batches) == 2 for step in steps[:-1])


def test_resuming_from_any_cursor_gives_the_identical_rest(builder):
    steps = list(Loader(SOURCES, builder, FEED))
    expected = [content(step) for step in steps]
    assert len(steps) >= 8
    for done, step in enumerate(steps, 1):
        again = Loader(SOURCES, builder, FEED)
        again.load(json.loads(json.dumps(step.cursor)))
        rest = list(again)
        assert [content(step) for step in rest] == expected[done:]
        assert [step.cursor for step in rest] == [step.cursor for step in steps[done:]]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(builder, workers):
    alone = list(Loader(SOURCES, builder, FEED))
    helped = Loader(SOURCES, builder, replace(FEED, workers=workers))
    helped.load(alone[1].cursor)
    steps = list(helped)
    assert [content(step) for step in steps] == [content(step) for step in alone[2:]]
    assert [step.cursor for step in steps] == [step.cursor for step in alone[2:]]


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_same_packs(builder, world):
    feed = replace(FEED, micro_batch=1)
    alone = list(Loader(SOURCES, builder, feed))
    ranks = [list(Loader(SOURCES, builder, replace(feed, rank=rank, world=world))) for rank in range(world)]
    for whole, *shares in zip(alone, *ranks, strict=True):
        assert all(share.cursor == whole.cursor for share in shares)
        assert len({len(share.batches) for share in shares}) == 1
        dealt = [batch for group in zip(*(share.batches for share in shares), strict=True) for batch in group]
        assert [b.sample_ids for b in dealt][: len(whole.batches)] == [b.sample_ids for b in whole.batches]
        assert all(not batch.sample_ids and not batch.answer_tokens for batch in dealt[len(whole.batches) :])


def test_resuming_on_another_number_of_ranks_continues_the_same_packs(builder):
    alone = list(Loader(SOURCES, builder, FEED))
    ranks = [Loader(SOURCES, builder, replace(FEED, rank=rank, world=2)) for rank in range(2)]
    for rank in ranks:
        rank.load(alone[2].cursor)
    assert sorted(ids(list(ranks[0]) + list(ranks[1]))) == sorted(ids(alone[3:]))


def test_short_samples_fill_their_packs(chatml, layout):
    feed = replace(FEED, sequence=1024, samples=None)
    wide = SampleBuilder(chatml, layout, 1024)
    steps = list(islice(Loader(SOURCES, wide, feed), 5))
    padding = sum(batch.padding for step in steps for batch in step.batches)
    assert padding / sum(batch.tokens.numel() for step in steps for batch in step.batches) < 0.05


@pytest.mark.parametrize("change", [{"name": "coarse"}, {"seed": 6}, {"sequence": 256}, {"shares": {"a": 1, "b": 1}}])
def test_the_cursor_of_another_feed_is_refused(builder, change):
    cursor = next(iter(Loader(SOURCES, builder, FEED))).cursor
    with pytest.raises(DataError, match="the cursor was written by"):
        Loader(SOURCES, builder, replace(FEED, **change)).load(cursor)


def test_a_global_batch_that_ranks_cannot_share_is_refused(builder):
    with pytest.raises(DataError, match="global_batch 4 cannot be dealt equally to 3 ranks"):
        Loader(SOURCES, builder, replace(FEED, world=3))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_record_stops_the_run_and_is_named(builder, workers):
    sources = {**SOURCES, "b": Memory(23, broken=7)}
    with pytest.raises(DataError, match=r"^record 7 of source b: its line is cut$"):
        list(Loader(sources, builder, replace(FEED, workers=workers)))


def test_a_damaged_image_is_named_with_its_record(builder):
    class Damaged(Memory):
        def __getitem__(self, position):
            turns = (Turn("user", "<image>"), Turn("assistant", "yes"))
            return Record(f"id{position}", turns, (b"nonsense",))

    with pytest.raises(DataError, match=r"record \d+ \(id\d+\) of source a: an image of 8 bytes cannot be opened"):
        list(Loader({**SOURCES, "a": Damaged(40)}, builder, FEED))


def test_a_loader_can_be_sent_to_another_process(builder):
    steps = list(Loader(SOURCES, builder, FEED))
    again = list(pickle.loads(pickle.dumps(Loader(SOURCES, builder, FEED))))
    assert [content(step) for step in again] == [content(step) for step in steps]


def test_leaving_the_loop_ends_the_workers(builder):
    steps = iter(Loader(SOURCES, builder, replace(FEED, workers=2, samples=None)))
    next(steps)
    children = _children()
    assert len(children) >= 2
    steps.close()
    deadline = time.monotonic() + 10
    while _children() & children and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _children() & children


def _children() -> set[int]:
    return {child.pid for child in multiprocessing.active_children()}
