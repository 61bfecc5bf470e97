"""LLaVA-style rows: both spellings of turns, one or several images, and refusals that say what to do."""

from __future__ import annotations

import json

import pytest

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Turn
from sailvit.data.sources import open_source

TALK = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a cat"}]
TEXT = [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]


def opened(folder, rows, name="data.json", **settings):
    text = (
        json.dumps(rows)
        if name.endswith(".json")
        else "".join(json.dumps(row) + "\n" for row in rows)
    )
    (folder / name).write_text(text, encoding="utf-8")
    return open_source("src", SourceConfig(format="llava", path=name, **settings), folder)


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_arrays_and_lines_read_alike(tmp_path, name):
    source = opened(
        tmp_path,
        [{"id": "é", "image": "a/b.jpg", "conversations": TALK}, {"conversations": TEXT}],
        name,
    )
    assert len(source) == 2
    first, second = source[0], source[1]
    assert (first.id, first.images, first.kind) == ("é", (tmp_path / "a/b.jpg",), "chat")
    assert first.turns == (Turn("user", "<image>\nwhat?"), Turn("assistant", "a cat"))
    assert (second.id, second.images) == ("1", ())


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_nan_is_no_value(tmp_path, name):
    """As in records that pandas wrote of a table in which only some rows have an image."""
    rows = [{"id": "x", "image": float("nan"), "system": float("nan"), "conversations": TEXT}]
    record = opened(tmp_path, rows, name)[0]
    assert (record.id, record.images) == ("x", ())
    assert [turn.text for turn in record.turns] == ["1 + 1?", "2"]


def test_messages_and_pieces_are_the_same_conversation(tmp_path):
    pieces = [{"type": "image"}, {"type": "text", "text": "\nwhat?"}]
    spelled = [
        {"image": "x.png", "conversations": TALK},
        {
            "images": ["x.png"],
            "messages": [
                {"role": "user", "content": "<image>\nwhat?"},
                {"role": "assistant", "content": "a cat"},
            ],
        },
        {
            "image": ["x.png"],
            "messages": [
                {"role": "user", "content": pieces},
                {"role": "assistant", "content": "a cat"},
            ],
        },
    ]
    source = opened(tmp_path, spelled)
    assert source[0].turns == source[1].turns == source[2].turns
    assert source[0].images == source[1].images == source[2].images


def test_several_images_and_a_system_turn(tmp_path):
    turns = [
        {"from": "system", "value": "be brief"},
        {"from": "human", "value": "<image> or <image>?"},
        TALK[1],
    ]
    record = opened(
        tmp_path, [{"images": ["1.png", "2.png"], "conversations": turns}], images="pictures"
    )[0]
    assert record.images == (tmp_path / "pictures/1.png", tmp_path / "pictures/2.png")
    assert [turn.role for turn in record.turns] == ["system", "user", "assistant"]


def test_kind_comes_from_the_row_or_the_options(tmp_path):
    rows = [
        {"image": "a.png", "conversations": TALK},
        {"kind": "ocr", "image": "a.png", "conversations": TALK},
    ]
    source = opened(tmp_path, rows, options={"kind": "caption"})
    assert [source[position].kind for position in range(2)] == ["caption", "ocr"]


def test_chat_is_the_same_reader_for_text_alone(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]}
    ]
    (tmp_path / "chat.jsonl").write_text(json.dumps(rows[0]) + "\n")
    record = open_source("src", SourceConfig(format="chat", path="chat.jsonl"), tmp_path)[0]
    assert (record.turns, record.images, record.kind) == (
        (Turn("user", "1 + 1?"), Turn("assistant", "2")),
        (),
        "chat",
    )


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../b.png", ".."])
def test_images_outside_the_folder_are_refused(tmp_path, name):
    source = opened(tmp_path, [{"image": name, "conversations": TALK}])
    with pytest.raises(DataError, match="leads out of"):
        source[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": 7, "conversations": TALK}, r"record 7 has 1 <image> marks and 0 images"),
        (
            {"id": 7, "image": "a.png", "conversations": TEXT},
            r"record 7 has 0 <image> marks and 1 images",
        ),
        ({"text": "hi"}, "found keys text; expected a list of turns"),
        ({"conversations": []}, "expected a list of turns"),
        ({"conversations": [{"from": "dog", "value": "wuff"}]}, "expected `from`"),
        ({"conversations": [{"from": ["gpt"], "value": "a"}]}, "expected `from`"),
        ({"conversations": [{"from": "gpt", "value": 3}]}, "expected `from`"),
        ({"conversations": ["hi"]}, "expected `from`"),
        (
            {"messages": [{"role": "user", "content": [{"type": "audio"}]}]},
            "pieces of type text or image",
        ),
        ({"image": 3, "conversations": TALK}, "found image 3; expected bytes, a path"),
        ({"images": [None], "conversations": TALK}, "found image None; expected bytes, a path"),
        (["hi"], "expected a JSON object"),
    ],
)
def test_rows_that_do_not_hold_together_say_why(tmp_path, row, message):
    source = opened(tmp_path, [row])
    with pytest.raises(DataError, match=message):
        source[0]
