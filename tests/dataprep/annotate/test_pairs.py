from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_judging import PICTURE, Records, Scripted, caption

from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Record, Turn
from sailvit.data.processing.images import load_image
from sailvit.data.sources import open_source
from sailvit.dataprep.annotate.pairs import MOST, Harvest, read_pairs, write_pairs

TWO = '[{"question": "What is it?", "answer": "A boat."}, {"question": " Which colour? ", "answer": "red"}]'


def written(tmp_path: Path, source: Records, *replies: str | None) -> tuple[Harvest, Scripted]:
    model = Scripted(*replies)
    return write_pairs(
        source, ("One {caption}", "Two {caption}"), model, out=tmp_path / "qa.jsonl"
    ), model


def opened(tmp_path: Path) -> list[Record]:
    source = open_source("qa", SourceConfig(format="llava", path="qa.jsonl"), tmp_path)
    return [source[position] for position in range(len(source))]


def test_what_is_written_reads_back_as_conversations(tmp_path):
    photo = tmp_path / "photos" / "b.jpg"
    photo.parent.mkdir()
    Image.fromarray(np.full((8, 8, 3), 90, dtype=np.uint8)).save(photo)
    source = Records(caption("a"), replace(caption("b"), images=(photo,)), caption("c", images=2))
    harvest, model = written(tmp_path, source, TWO, f"Sure!\n```json\n{TWO}\n```", TWO)
    records = opened(tmp_path)
    assert [record.id for record in records] == ["a", "b", "c"]
    for record, images in zip(records, (1, 1, 2), strict=True):
        assert record.kind == "qa"
        assert len(record.images) == images
        assert record.turns[1:] == (
            Turn("assistant", "A boat."),
            Turn("user", "Which colour?"),
            Turn("assistant", "red"),
        )
        assert record.turns[0].text == "<image>\n" * images + "What is it?"
    assert np.array_equal(load_image(records[0].images[0]), PICTURE)
    assert records[1].images[0].read_bytes() == photo.read_bytes()
    assert records[1].images[0].stat().st_ino == photo.stat().st_ino
    assert harvest == Harvest(records=3, pairs=6)
    assert [record.turns[0].text.split("\n")[-1].split()[0] for record in model.asked] == [
        "One",
        "Two",
        "One",
    ]
    assert len(list((tmp_path / "qa-images").iterdir())) == 2


def test_symbolic_links_and_converted_images_are_kept_whole(tmp_path):
    (tmp_path / "real").mkdir()
    Image.fromarray(PICTURE).save(tmp_path / "real" / "a.png")
    Image.fromarray(PICTURE + 7).save(tmp_path / "real" / "b.bmp")
    (tmp_path / "link.png").symlink_to("real/a.png")
    images = (tmp_path / "link.png", tmp_path / "real" / "b.bmp")
    written(tmp_path, Records(replace(caption("a", images=2), images=images)), TWO)
    (record,) = opened(tmp_path)
    (tmp_path / "link.png").unlink()
    assert np.array_equal(load_image(record.images[0]), PICTURE)
    assert np.array_equal(load_image(record.images[1]), PICTURE + 7)


def test_what_gives_no_questions_is_listed_with_the_reason(tmp_path):
    source = Records(caption("a"), None, caption("c"), caption("d"), caption("e"))
    harvest, _ = written(
        tmp_path, source, "I would rather not.", None, '[{"question": "Why?"}]', TWO
    )
    assert harvest == Harvest(records=1, pairs=2, bad=2, failed=2)
    assert [record.id for record in opened(tmp_path)] == ["e"]
    bad = [json.loads(line) for line in (tmp_path / "qa-bad.jsonl").read_text().splitlines()]
    assert [(line["position"], line["id"]) for line in bad] == [
        (0, "a"),
        (1, ""),
        (2, "c"),
        (3, "d"),
    ]
    assert [line["raw"] for line in bad] == [
        "I would rather not.",
        "",
        "",
        '[{"question": "Why?"}]',
    ]
    assert bad[0]["error"] == "no JSON list"
    assert "damaged" in bad[1]["error"]
    assert "0.answer: Field required" in bad[3]["error"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON list"),
        ("] [", "no JSON list"),
        ("[]", "at least 1"),
        ("[1]", "0"),
        ('[{"question": "a"', "no JSON list"),
        ('[{"question": "a", "answer": "b",}]', "JSON"),
        ('[{"question": "  ", "answer": "b"}]', "0.question"),
        ('[{"question": "see <image>", "answer": "b"}]', "holds <image>"),
        ('[{"question": "a", "answer": 3}]', "0.answer"),
        (json.dumps([{"question": "a", "answer": "b"}] * (MOST + 1)), f"at most {MOST}"),
    ],
)
def test_replies_that_are_no_list_of_pairs_say_why(text, reason):
    with pytest.raises(ValueError, match=reason):
        read_pairs(text)


def test_more_than_was_asked_for_is_left_out():
    (pair,) = read_pairs('Here: [{"question": "a", "answer": "b", "reason": "c"}] Good luck!')
    assert (pair.question, pair.answer) == ("a", "b")
