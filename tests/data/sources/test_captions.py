"""Captions: one image, one text, a prompt by position."""

from __future__ import annotations

import json

import pytest

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Turn
from sailvit.data.sources import open_source


def opened(folder, rows, **options):
    (folder / "c.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    return open_source(
        "src", SourceConfig(format="captions", path="c.jsonl", options=options), folder
    )


def test_a_row_becomes_a_caption(tmp_path):
    source = opened(
        tmp_path,
        [{"image": "a.png", "text": "a cat"}, {"id": "x", "image": "b.png", "text": "a dog"}],
    )
    first = source[0]
    assert (first.kind, first.images) == ("caption", (tmp_path / "a.png",))
    assert first.turns == (Turn("user", "<image>\nDescribe the image."), Turn("assistant", "a cat"))
    assert (first.id, source[1].id) == ("0", "x")


def test_other_spellings(tmp_path):
    rows = [
        {"id": None, "image": {"path": "a.png"}, "caption": "a cat"},
        {"id": 5, "images": ["b.png"], "text": "b"},
    ]
    first, second = opened(tmp_path, rows)[0], opened(tmp_path, rows)[1]
    assert (first.id, first.images, first.turns[1].text) == ("0", (tmp_path / "a.png",), "a cat")
    assert (second.id, second.images, second.kind) == ("5", (tmp_path / "b.png",), "caption")


def test_prompts_take_turns(tmp_path):
    source = opened(
        tmp_path, [{"image": "a.png", "text": "a cat"}] * 3, prompts=["What is it?", "Describe."]
    )
    assert [source[n].turns[0].text.split("\n")[1] for n in range(3)] == [
        "What is it?",
        "Describe.",
        "What is it?",
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": "a.png"}, "found keys image; expected"),
        (
            {"image": "a.png", "text": " "},
            "expected one `image`, and a `text` or `caption` that is not blank",
        ),
        ({"image": 3, "text": "a"}, "found image 3"),
        ({"image": ["a.png", "b.png"], "caption": "two"}, "expected one `image`"),
        ({"image": "a.png", "text": "an <image> of a cat"}, "remove the mark"),
        ({"image": "../a.png", "text": "a cat"}, "leads out of"),
    ],
)
def test_rows_that_are_no_captions_say_why(tmp_path, row, message):
    source = opened(tmp_path, [row])
    with pytest.raises(DataError, match=message):
        source[0]
