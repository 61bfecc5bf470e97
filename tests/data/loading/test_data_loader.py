"""The loader: exact resume, the same packs on any number of ranks and workers, masked records, and no orphans."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import threading
import time
from collections import Counter, deque
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch

from sailvit.core.errors import DataError
from sailvit.core.recipe import QuarantineConfig
from sailvit.core.records import Record, Turn
from sailvit.data.lengths.costs import CostTable
from sailvit.data.lengths.measuring import measure
from sailvit.data.loading.loader import Loader
from sailvit.data.loading.reader import BatchReader
from sailvit.data.processing.processor import Processor
from sailvit.data.sampling.loader_config import LoaderConfig

WORDS = [
    "what",
    "colour",
    "is",
    "the",
    "large",
    "red",
    "blue",
    "circle",
    "left",
    "of",
    "small",
    "square",
]


class Memory:
    """Records made from their position."""

    fingerprint = "memory"

    def __init__(self, size, *, broken=(), images=True):
        self.size, self.broken, self.images = size, broken, images

    def __len__(self):
        return self.size

    def __getitem__(self, position):
        if position in self.broken:
            raise DataError("its line is cut", kind="json")
        source = np.random.default_rng(position)
        answer = " ".join(source.choice(WORDS, source.integers(2, 12)))
        image = self.images and position % 3 > 0
        turns = (Turn("user", "<image>" * image + "describe"), Turn("assistant", answer))
        pixels = (np.full((8, 8, 3), position % 256, np.uint8),) * image
        return Record(str(position), turns, pixels, "caption" if image else "text")


FEED = LoaderConfig(
    name="fine",
    seed=5,
    shares={"a": 3, "b": 1},
    sequence=128,
    global_batch=8,
    micro_batch=1,
    samples=260,
)
SOURCES = {"a": Memory(40), "b": Memory(23)}


@pytest.fixture(scope="module")
def processor(chatml, layout):
    return Processor(chatml, layout, FEED.sequence)


@pytest.fixture(scope="module")
def load(processor):
    """A loader; costs are those of undamaged sources."""
    costs = {}

    def make(loader_config=FEED, sources=SOURCES, *, cursor=None, **settings):
        for source in sources.values():
            whole = (len(source), source.images)
            if whole not in costs:
                costs[whole] = measure("", Memory(len(source), images=source.images), processor)
        found = {name: costs[len(source), source.images] for name, source in sources.items()}
        loader = Loader(sources, found, processor, loader_config, **settings)
        if cursor is not None:
            loader.load(json.loads(json.dumps(cursor)))
        return loader

    return make


@pytest.fixture(scope="module")
def alone(load):
    """The steps of one rank without workers."""
    return list(load())


TENSORS = ("tokens", "positions", "labels", "boundaries", "tiles", "image_of_tile", "caption_of")


def content(step):
    """Everything a step holds, comparable."""
    return step.cursor, [
        (batch.sample_ids, batch.padding, *(getattr(batch, name).tolist() for name in TENSORS))
        for batch in step.batches
    ]


def contents(steps):
    return list(map(content, steps))


def packs(steps):
    """The packs of every step as sets of ids, whichever rank has them; rows of padding are left out."""
    return [
        sorted(batch.sample_ids for batch in step.batches if batch.sample_ids) for step in steps
    ]


def ids(steps):
    return [name for step in steps for batch in step.batches for name in batch.sample_ids]


def test_a_feed_draws_exactly_its_samples_in_the_given_shares(alone):
    drawn = ids(alone)
    assert len(drawn) == 260
    counts = Counter(name.split("/")[0] for name in drawn)
    assert abs(counts["a"] - 195) <= 1
    assert alone[-1].cursor["samples"] == 260
    assert alone[-1].cursor["steps"] == len(alone)
    tokens = sum(batch.tokens.numel() - batch.padding for step in alone for batch in step.batches)
    assert alone[-1].cursor["tokens"] == tokens


def test_every_record_comes_once_per_epoch(load):
    drawn = Counter(ids(load(replace(FEED, shares={"a": 1}, samples=120), {"a": SOURCES["a"]})))
    assert set(drawn.values()) == {3}
    assert len(drawn) == 40


def test_packs_hold_at_most_the_sequence_and_steps_the_global_batch(load):
    steps = list(load(replace(FEED, micro_batch=2)))
    assert all(
        batch.tokens.shape[0] == 2 and batch.tokens.shape[1] <= 128
        for s in steps[:-1]
        for batch in s.batches
    )
    assert all(len(step.batches) == 4 for step in steps[:-1])


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_resuming_from_any_cursor_gives_the_identical_rest_on_any_number_of_ranks(
    load, alone, world
):
    for done, step in enumerate(alone, 1):
        ranks = [
            list(load(replace(FEED, rank=rank, world=world), cursor=step.cursor))
            for rank in range(world)
        ]
        assert [step.cursor for step in ranks[0]] == [step.cursor for step in alone[done:]]
        met = [
            list(chain(*(packs(steps)[at] for steps in ranks))) for at in range(len(alone) - done)
        ]
        assert [sorted(found) for found in met] == packs(alone[done:])
    assert len(alone) >= 6


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 1), (2, None), (3, 5)])
def test_workers_and_prefetch_change_nothing(load, alone, workers, prefetch):
    helped = load(replace(FEED, workers=workers), cursor=alone[1].cursor, prefetch=prefetch)
    assert contents(helped) == contents(alone[2:])


def test_stopping_and_resuming_with_workers_again_and_again_changes_nothing(load, alone):
    got, cursor = [], None
    for workers, prefetch, steps in [(2, 1, 1), (1, 4, 2), (0, None, 1), (2, 3, 1), (2, None, 99)]:
        got += islice(load(replace(FEED, workers=workers), cursor=cursor, prefetch=prefetch), steps)
        cursor = got[-1].cursor
    assert contents(got) == contents(alone)


@pytest.mark.parametrize("world", [2, 4, 8])
def test_ranks_share_the_same_packs(load, alone, world):
    ranks = [list(load(replace(FEED, rank=rank, world=world))) for rank in range(world)]
    for whole, *shares in zip(alone, *ranks, strict=True):
        assert all(share.cursor == whole.cursor for share in shares)
        assert {len(share.batches) for share in shares} == {-(-len(whole.batches) // world)}
        assert sorted(chain(*(packs([share])[0] for share in shares))) == packs([whole])[0]
        rows = [batch for share in shares for batch in share.batches if not batch.sample_ids]
        assert all(not batch.answer_tokens and not len(batch.tiles) for batch in rows)


def test_several_workers_share_the_work_of_one_step(load):
    class Tracing(Memory):
        def __getitem__(self, position):
            record = super().__getitem__(position)
            return replace(record, id=f"{position}-{os.getpid()}")

    step = next(iter(load(replace(FEED, workers=2), {"a": Tracing(40), "b": Tracing(23)})))
    readers = [{name.split("-")[1] for name in batch.sample_ids} for batch in step.batches]
    assert all(len(pids) == 1 for pids in readers)
    assert len(set.union(*readers)) == 2


@pytest.mark.parametrize(
    "change", [{"name": "coarse"}, {"seed": 6}, {"sequence": 256}, {"shares": {"a": 1, "b": 1}}]
)
def test_the_cursor_of_another_feed_is_refused(load, alone, change):
    with pytest.raises(DataError, match="the cursor was written with"):
        load(replace(FEED, **change), cursor=alone[0].cursor)


def test_a_global_batch_that_ranks_cannot_share_is_refused(load):
    with pytest.raises(DataError, match="global_batch 8 cannot be dealt equally to 3 ranks"):
        load(replace(FEED, world=3))


def test_training_randomness_is_not_touched(load):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    next(iter(load(replace(FEED, workers=1))))
    assert torch.rand(1).equal(expected)


BROKEN = {"a": Memory(40, broken=(3, 17)), "b": Memory(23, broken=(5,))}
GONE = {"a/3", "a/17", "b/5"}
LENIENT = replace(FEED, quarantine=QuarantineConfig(share=0.2))


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_records_are_left_out_and_nothing_else_moves(load, alone, workers):
    reported = []
    steps = list(load(replace(LENIENT, workers=workers), BROKEN, report=reported.append))
    expected = [
        [[i for i in batch.sample_ids if i not in GONE] for batch in step.batches] for step in alone
    ]
    assert [[[*batch.sample_ids] for batch in step.batches] for step in steps] == expected
    assert [step.cursor for step in steps] == [step.cursor for step in alone]
    lost = [
        (number, name)
        for number, step in enumerate(alone, 1)
        for name in ids([step])
        if name in GONE
    ]
    assert [(bad.step, f"{bad.source}/{bad.position}") for bad in reported] == lost
    assert {(bad.kind, bad.reason, bad.id) for bad in reported} == {("json", "its line is cut", "")}


def test_a_resumed_run_reports_the_bad_records_of_its_own_steps(load, alone):
    every, rest = [], []
    list(load(LENIENT, BROKEN, report=every.append))
    list(load(LENIENT, BROKEN, cursor=alone[1].cursor, report=rest.append))
    assert rest == [bad for bad in every if bad.step > 2]


def test_a_pack_of_bad_records_alone_becomes_padding(load):
    sources = {"a": Memory(40, broken=range(20)), "b": SOURCES["b"]}
    loader_config = replace(FEED, sequence=40, samples=40, quarantine=QuarantineConfig(share=1))
    steps = list(load(loader_config, sources))
    empty = [batch for step in steps for batch in step.batches if not batch.sample_ids]
    assert empty
    assert all(
        batch.answer_tokens == 0 and batch.padding == batch.tokens.numel() for batch in empty
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_bad_records_stop_the_run_with_the_worst_source(load, workers):
    sources = {"a": Memory(40, broken=(3,)), "b": Memory(23, broken=range(0, 23, 2))}
    reported = []
    loader_config = replace(FEED, workers=workers, quarantine=QuarantineConfig(share=0.1, allow=4))
    with pytest.raises(
        DataError, match=r"of source b could not be read \(\d+ json\); at most 4, or 10"
    ) as caught:
        list(load(loader_config, sources, report=reported.append))
    assert caught.value.kind == "quarantine"
    bad = [record for record in reported if record.source == "b"]
    assert len(bad) >= 5
    assert str(bad[0]) == f"record {bad[0].position} of source b: its line is cut"
    assert str(bad[0]) in str(caught.value)


def test_up_to_the_allowed_number_the_share_does_not_count(load):
    loader_config = replace(FEED, quarantine=QuarantineConfig(share=0, allow=50))
    assert len(list(load(loader_config, BROKEN))) > 5
    with pytest.raises(DataError, match=r"at most 0, or 0\.00 %, are left out"):
        list(load(replace(FEED, quarantine=QuarantineConfig(share=0, allow=0)), BROKEN))


def test_a_source_without_a_readable_record_stops_the_run_at_once(load):
    nothing = {"a": Memory(40, broken=range(40)), "b": Memory(23, broken=range(23))}
    loader_config = replace(FEED, quarantine=QuarantineConfig(share=1, allow=1000))
    steps = iter(load(loader_config, nothing))
    with pytest.raises(DataError, match="could not be read"):
        next(steps)


def test_a_record_that_grew_since_it_was_measured_is_left_out(processor):
    counts = measure("a", SOURCES["a"], processor)
    tokens = counts.tokens.copy()
    tokens[7] -= 1
    reported = []
    loader_config = replace(FEED, shares={"a": 1}, samples=40)
    costs = {"a": CostTable(tokens, counts.tiles)}
    drawn = ids(
        Loader({"a": SOURCES["a"]}, costs, processor, loader_config, report=reported.append)
    )
    assert len(drawn) == 39
    assert [(bad.position, bad.kind, bad.id) for bad in reported] == [(7, "changed", "7")]


def test_a_record_that_hangs_is_given_up(load):
    class Hanging(Memory):
        def __getitem__(self, position):
            if position == 9:
                time.sleep(30)
            return super().__getitem__(position)

    for workers in (0, 1):
        reported = []
        loader_config = replace(
            FEED, samples=80, workers=workers, quarantine=QuarantineConfig(timeout=0.2)
        )
        began = time.monotonic()
        drawn = ids(
            load(loader_config, {"a": Hanging(40), "b": SOURCES["b"]}, report=reported.append)
        )
        assert {(bad.position, bad.kind) for bad in reported} == {(9, "timeout")}
        assert len(drawn) + len(reported) == 80
        assert time.monotonic() - began < 20


def test_a_good_record_that_was_late_once_is_read(load):
    # As on a machine that gave the process no time, or after it was suspended.
    class Late(Memory):
        late: set[int] = set()

        def __getitem__(self, position):
            if position in (9, 11) and position not in self.late:
                self.late.add(position)
                time.sleep(30)
            return super().__getitem__(position)

    reported = []
    loader_config = replace(FEED, samples=80, quarantine=QuarantineConfig(timeout=1))
    sources = {"a": Late(40), "b": SOURCES["b"]}
    drawn = ids(load(loader_config, sources, report=reported.append))
    assert sources["a"].late == {9, 11}
    assert reported == []
    assert drawn == ids(load(replace(FEED, samples=80)))


def test_tiles_of_a_late_image_are_made_anew(load, monkeypatch):
    from sailvit.data.processing import processor as module

    real, late = module.tile_image, []

    def tile_image(image, layout, free):
        made = real(image, layout, free)
        if not late:
            late.append(True)
            time.sleep(30)
        return made

    plain = [step.batches for step in load(replace(FEED, samples=40))]
    monkeypatch.setattr(module, "tile_image", tile_image)
    reported = []
    loader_config = replace(FEED, samples=40, quarantine=QuarantineConfig(timeout=1))
    again = [step.batches for step in load(loader_config, report=reported.append)]
    assert late
    assert not reported
    for before, after in zip(chain(*plain), chain(*again), strict=True):
        assert torch.equal(before.tiles, after.tiles)


def test_errors_of_the_program_are_not_taken_for_bad_data(load):
    class Wrong(Memory):
        def __getitem__(self, position):
            raise AssertionError("a mistake")

    with pytest.raises(AssertionError, match="a mistake"):
        next(iter(load(sources={"a": Wrong(40), "b": Wrong(23)})))


def test_a_reader_can_be_sent_to_another_process(processor):
    reader = pickle.loads(pickle.dumps(BatchReader(SOURCES, processor, tiles=None, timeout=None)))
    assert isinstance(reader, BatchReader)


def test_leaving_the_loop_ends_the_workers(load):
    before = _children()
    steps = iter(load(replace(FEED, workers=2, samples=None)))
    next(steps)
    children = _children() - before
    assert len(children) == 2
    steps.close()
    assert _gone(children, 10)


def test_a_killed_worker_is_an_error_that_says_what_to_do(load):
    before = _children()
    steps = iter(load(replace(FEED, workers=2, samples=None)))
    next(steps)
    for child in _children() - before:
        os.kill(child, signal.SIGKILL)
    with pytest.raises(
        DataError, match=r"a loader process ended: .*worker.*memory ran out"
    ) as caught:
        deque(steps, maxlen=0)
    assert caught.value.kind == "worker"


def test_a_stop_sent_to_all_processes_leaves_the_workers_at_work(load):
    before = _children()
    steps = iter(load(replace(FEED, workers=2, samples=None)))
    next(steps)
    for child in _children() - before:
        # From another process: from this one it would be meant.
        subprocess.run(["sh", "-c", f"kill -INT {child}; kill -TERM {child}"], check=True)
    threading.Event().wait(0.2)
    assert len(list(islice(steps, 20))) == 20
    steps.close()


@pytest.mark.parametrize("steps", [0, 2])
def test_workers_end_with_a_parent_that_was_killed(load, steps):
    context = multiprocessing.get_context("fork")
    told, tell = context.Pipe(duplex=False)
    parent = context.Process(
        target=_iterate, args=(load(replace(FEED, workers=2, samples=None)), tell, steps)
    )
    parent.start()
    workers = told.recv()
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    deadline = time.monotonic() + 15
    while any(map(_runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [worker for worker in workers if _runs(worker)]


def _iterate(loader, tell, steps):
    running = iter(loader)
    for _ in range(steps):
        next(running)
    if not steps:
        threading.Thread(target=lambda: next(running), daemon=True).start()
    while len(_children()) < 2:
        time.sleep(0.001)
    tell.send([child.pid for child in multiprocessing.active_children()])
    time.sleep(60)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def _gone(children: set[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _children() & children and time.monotonic() < deadline:
        time.sleep(0.05)
    return not _children() & children


def _children() -> set[int]:
    return {child.pid for child in multiprocessing.active_children()}
