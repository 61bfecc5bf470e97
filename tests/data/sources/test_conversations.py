"""Rows as public sets spell them: LLaVA, ShareGPT4V, InternVL, OpenAI messages, The Cauldron."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Turn
from sailvit.data.rows.columns import column_record
from sailvit.data.rows.conversations import RecordOptions
from sailvit.data.sources import open_source

ASKED = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "a cat"}]
SHOWN = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a cat"}]
EXPECTED = (Turn("user", "<image>\nwhat?"), Turn("assistant", "a cat"))


def read(folder: Path, row: object, **options: object):
    (folder / "data.jsonl").write_text(json.dumps(row) + "\n")
    return open_source(
        "src", SourceConfig(format="llava", path="data.jsonl", options=options), folder
    )[0]


@pytest.mark.parametrize(
    "row",
    [
        {"id": 33471, "image": "a.jpg", "conversations": SHOWN},
        {"image": ["a.jpg"], "width_list": [3], "height_list": [2], "conversations": SHOWN},
        {"image": "a.jpg", "conversations": [SHOWN[0], {"from": "gpt", "text": "a cat"}]},
        {"image": None, "images": ["a.jpg"], "messages": SHOWN},
        {"image": "a.jpg", "images": [], "conversation": SHOWN},
        {"images": [{"path": "a.jpg", "bytes": None}], "conversations": SHOWN},
        {
            "image": {"path": "a.jpg"},
            "conversations": [SHOWN[0], {"from": "GPT", "value": "a cat"}],
        },
        {"image": "a.jpg", "kind": None, "conversations": [{"from": "user", **SHOWN[0]}, SHOWN[1]]},
        {"image": "a.jpg", "texts": [{"user": "what?", "assistant": "a cat", "source": "vqa"}]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": "a.jpg"},
                        {"type": "text", "text": "\nwhat?"},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]},
            ]
        },
    ],
)
def test_spellings_of_one_conversation(tmp_path, row):
    record = read(tmp_path, row)
    assert (record.turns, record.images, record.kind) == (EXPECTED, (tmp_path / "a.jpg",), "chat")
    assert record.id == str(row.get("id", 0))


def test_images_inside_messages_may_be_encoded(tmp_path):
    piece = {"type": "image_url", "image_url": {"url": "data:image/png;base64,YWJj"}}
    content = [piece, {"type": "text", "text": "\nwhat?"}]
    record = read(
        tmp_path,
        {"messages": [{"role": "user", "content": content}, {"role": "model", "content": "a cat"}]},
    )
    assert (record.turns, record.images) == (EXPECTED, (b"abc",))


@pytest.mark.parametrize("image", [None, "", [], "absent"])
def test_rows_of_text_alone_in_a_set_of_images(tmp_path, image):
    row = {"id": "", "model": "", "conversations": ASKED} | (
        {} if image == "absent" else {"image": image}
    )
    record = read(tmp_path, row)
    assert (record.id, record.images, record.turns[0].text) == ("0", (), "what?")


def test_marks_that_are_missing_are_refused_or_put_first(tmp_path):
    system = {"from": "system", "value": "be brief"}
    row = {"images": ["a.jpg", "b.jpg"], "conversations": [system, *ASKED, *ASKED]}
    with pytest.raises(DataError, match=r"0 <image> marks and 2 images.*mark: prepend") as refused:
        read(tmp_path, row)
    assert refused.value.kind == "marks"
    turns = read(tmp_path, row, mark="prepend").turns
    assert [turn.text for turn in turns] == [
        "be brief",
        "<image>\n<image>\nwhat?",
        "a cat",
        "what?",
        "a cat",
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"images": ["a.jpg", "b.jpg"], "conversations": SHOWN},
        {"conversations": SHOWN},
        {"image": "", "conversations": SHOWN},
        {"image": "a.jpg", "conversations": ASKED[1:]},
    ],
)
def test_prepending_mends_no_other_mismatch(tmp_path, row):
    with pytest.raises(DataError, match="expected one mark per image"):
        read(tmp_path, row, mark="prepend")


def test_columns_are_read_alike(tmp_path):
    texts = [
        {"user": "what?", "assistant": "a cat", "source": "s"},
        {"user": "sure?", "assistant": "yes", "source": "s"},
    ]
    row = {"images": [{"bytes": b"1", "path": None}], "texts": texts, "id": None}
    record = column_record(row, RecordOptions(), folder=tmp_path, position=7)
    assert (record.id, record.images, record.kind) == ("7", (b"1",), "chat")
    assert [turn.text for turn in record.turns] == ["<image>\nwhat?", "a cat", "sure?", "yes"]
    asked = {"image": b"1", "conversations": ASKED}
    assert (
        column_record(asked, RecordOptions(mark="prepend"), folder=tmp_path, position=0).turns
        == EXPECTED
    )
