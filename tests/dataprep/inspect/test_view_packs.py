"""Views of packs: what they say is what the batch holds, and mistakes are named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_tokenizers import CHATML, byte_tokenizer

from sailvit.core.bad_records import BadRecord
from sailvit.core.batch import IGNORED
from sailvit.core.layout import VisualLayout
from sailvit.core.records import Record, Turn
from sailvit.data.processing.collate import collate
from sailvit.data.processing.processor import Processor
from sailvit.data.sampling.loader_config import LoaderConfig
from sailvit.dataprep.inspect.packs import view_packs
from sailvit.dataprep.inspect.pictures import Album
from sailvit.dataprep.inspect.segments import segments

TOKENIZER = byte_tokenizer(CHATML)
LAYOUT = VisualLayout(
    8, 3, TOKENIZER.convert_tokens_to_ids("<|image_pad|>"), "<|image_pad|>", max_tiles=6
)
BUILDER = Processor(TOKENIZER, LAYOUT, 200)


def record(name, text="<image>\nwhat?", answer="a cat", *sizes, kind="chat"):
    images = tuple(np.full((height, width, 3), 99, dtype=np.uint8) for width, height in sizes)
    return Record(name, (Turn("user", text), Turn("assistant", answer)), images, kind)


class Records:
    """A source of given records; an error in place of one is raised."""

    fingerprint = "f"
    faults = (
        BadRecord(
            shard="s.tar", offset=512, kind="link", reason="member 'a' is a link: it is left out"
        ),
    )

    def __init__(self, *records):
        self._records = records

    def __len__(self):
        return len(self._records)

    def __getitem__(self, position):
        if isinstance(self._records[position], Exception):
            raise self._records[position]
        return self._records[position]


def shown(*records, packs=1, **settings):
    loader_config = LoaderConfig(
        name="s",
        seed=1,
        shares={"r": 1.0},
        sequence=200,
        global_batch=2,
        samples=len(records),
        **settings,
    )
    return view_packs({"r": Records(*records)}, BUILDER, loader_config, packs=packs)


def test_a_sample_is_text_images_and_what_is_learnt():
    values = shown(
        record("one", "left <image> right <image>?", "a\ncat", (8, 8), (24, 16), kind="qa")
    )
    [pack] = values["packs"]
    [sample] = pack["samples"]
    text, first, between, second, rest = sample["pieces"]
    assert "".join(chip["text"] for chip in text["chips"]) == "<|im_start|>user\nleft "
    assert (first["columns"], len(first["cells"]), first["whole"], first["tokens"]) == (1, 1, [], 3)
    assert (second["columns"], len(second["cells"]), len(second["whole"]), second["tokens"]) == (
        3,
        6,
        1,
        21,
    )
    assert all(
        uri.startswith("data:image/png;base64,") for uri in [*first["cells"], *second["cells"]]
    )
    assert "".join(chip["text"] for chip in between["chips"]) == " right "
    assert "".join(chip["text"] for chip in rest["chips"] if chip["trained"]) == "a\ncat<|im_end|>"
    assert (sample["id"], sample["kind"], sample["pair"], sample["problems"]) == (
        "r/one",
        "qa",
        False,
        [],
    )
    assert (sample["images"], sample["tiles"], sample["image_tokens"], pack["tiles"]) == (
        2,
        8,
        24,
        8,
    )
    kinds = [stretch["kind"] for stretch in sample["stretches"]]
    assert kinds == ["given", "image", "given", "image", "given", "trained", "given"]
    assert (
        sum(stretch["tokens"] for stretch in sample["stretches"])
        == sample["tokens"]
        == pack["tokens"]
    )
    assert json.loads(json.dumps(values)) == values


def test_packs_follow_the_feed_and_add_up():
    values = shown(
        *(record(f"{n}", "<image>\nwhat is it?", "x" * n, (8, 8)) for n in range(1, 40)), packs=4
    )
    assert [pack["step"] for pack in values["packs"]] == [1, 1, 2, 2]
    for pack in values["packs"]:
        starts = [sample["start"] for sample in pack["samples"]]
        ends = np.cumsum([sample["tokens"] for sample in pack["samples"]])
        assert starts == [0, *ends[:-1]]
        assert pack["tokens"] + pack["padding"] == 200
        assert pack["problems"] == 0
    ids = [sample["id"] for pack in values["packs"] for sample in pack["samples"]]
    assert len(ids) == len(set(ids)) > 8


def test_pairs_cuts_bad_records_and_faults_are_told():
    long = record("long", "tell", "word " * 300)
    pair = record("pair", "<image>", "a cat", (8, 8), kind="caption")
    values = shown(pair, long, ValueError("torn"), packs=3)
    samples = {sample["id"]: sample for pack in values["packs"] for sample in pack["samples"]}
    assert samples["r/pair"]["pair"]
    assert samples["r/long"]["tokens"] == 200
    assert samples["r/long"]["cut_from"] > 300
    assert samples["r/pair"]["cut_from"] is None
    [bad] = [bad for pack in values["packs"] for bad in pack["bad"]]
    assert (bad["position"], "torn" in bad["reason"]) == (2, True)
    assert [fault["kind"] for fault in values["faults"]] == ["link"]


def test_tile_budgets_cut_images_and_are_shown():
    values = shown(record("many", "<image><image>", "two", (24, 16), (24, 16)), tiles=7, packs=1)
    assert values["tile_budget"] == 7
    assert values["packs"][0]["bad"]


def segment(**changes):
    sample = BUILDER("r", record("one", "<image>\nwhat?", "a cat", (16, 8)))
    batch = collate(
        [
            [
                replace(
                    sample, **{key: change(getattr(sample, key)) for key, change in changes.items()}
                )
            ]
        ]
    )
    [found] = segments(batch, 1, LAYOUT)
    return found


def altered(position, value):
    def change(labels):
        labels = labels.clone()
        labels[position] = value
        return labels

    return change


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"labels": lambda labels: torch.full_like(labels, IGNORED)}, "nothing is trained on"),
        ({"labels": lambda labels: labels.roll(1)}, "a label is not the next token"),
        ({"labels": altered(-1, 5)}, "a label leads into the next sample"),
        ({"labels": altered(-4, 5)}, "a label is not the next token"),
        (
            {"tiles": lambda t: t[:1], "image_of_tile": lambda i: i[:1]},
            "image tokens for 1 tiles of 3",
        ),
    ],
)
def test_mistakes_are_named(changes, problem):
    assert segment().problems() == []
    assert any(problem in found for found in segment(**changes).problems())


def test_image_tokens_that_are_learnt_are_named():
    whole = segment()
    first = int(whole.visual.argmax())
    changed = segment(labels=altered(first, LAYOUT.placeholder_id))
    assert changed.problems() == ["image tokens are trained on"]


def test_an_album_keeps_its_budget_and_shrinks_large_tiles():
    album = Album(budget=5_000)
    noise = torch.randint(
        0, 256, (3, 300, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    first, second = album.add(noise), album.add(noise)
    assert first.startswith("data:image/jpeg;base64,")
    assert len(first) < 60_000
    assert second is None
    assert album.left_out == 1
