from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sailvit.core.errors import DataError
from sailvit.core.records import Record, Turn
from sailvit.dataprep.annotate.judging import Criterion, JudgeCounts, judge
from sailvit.dataprep.annotate.prompts import (
    ALIGNMENT,
    PAIRS,
    QUESTIONS,
    RICHNESS,
    caption_text,
    prompt_record,
    read_prompts,
)
from sailvit.dataprep.annotate.replies import Reply, Usage, ask_about

PICTURE = np.zeros((4, 4, 3), dtype=np.uint8)


def caption(name: str, text: str = "A red boat.", images: int = 1) -> Record:
    turns = (Turn("user", "<image>\n" * images + "Describe it."), Turn("assistant", text))
    return Record(name, turns, (PICTURE,) * images, "caption")


class Records:
    """A source whose damaged records raise."""

    fingerprint = "records"

    def __init__(self, *records: Record | None) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, position: int) -> Record:
        if (record := self.records[position]) is None:
            raise DataError(f"row {position} is damaged")
        return record


class Scripted:
    """Replies as told, and remembers what was asked."""

    def __init__(self, *replies: str | None) -> None:
        self.usage = Usage()
        self.replies = iter(replies)
        self.asked: list[Record] = []

    def ask(self, records: Iterable[Record]) -> Iterator[Reply]:
        for record in records:
            self.asked.append(record)
            text = next(self.replies)
            yield Reply(error="the server was down") if text is None else Reply(text)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_record_gets_a_line_in_order(tmp_path):
    source = Records(
        caption("a"), None, caption("c"), caption("d", images=0), caption("e"), caption("f")
    )
    model = Scripted("4", "It is rich: 5.", "either 2 or 3", None)
    counts = judge(
        source, "boats", Criterion("richness", RICHNESS), model, out=tmp_path / "scores.jsonl"
    )
    found = lines(tmp_path / "scores.jsonl")
    assert [line["position"] for line in found] == list(range(6))
    assert [line["id"] for line in found] == ["a", "", "c", "d", "e", "f"]
    assert [line["score"] for line in found] == [4, None, 5, None, None, None]
    assert [line["raw"] for line in found] == ["4", "", "It is rich: 5.", "", "either 2 or 3", ""]
    assert {line["source"] for line in found} == {"boats"}
    assert {line["question"] for line in found} == {"richness"}
    errors = [line.get("error") for line in found]
    assert errors[0] is errors[2] is None
    assert "row 1 is damaged" in errors[1]
    assert "no image" in errors[3]
    assert "no single answer" in errors[4]
    assert errors[5] == "the server was down"
    assert (dict(counts.scores), counts.bad, counts.failed) == ({4: 1, 5: 1}, 1, 3)
    assert len(model.asked) == 4


def test_the_scores_filter_reads_what_the_judge_writes(tmp_path):
    from sailvit.dataprep.curate.filters.scores import ScoreTable

    source = Records(caption("a"), None, caption("c"))
    judge(
        source,
        "boats",
        Criterion("richness", RICHNESS),
        Scripted("4", "2"),
        out=tmp_path / "scores.jsonl",
    )
    assert ScoreTable(tmp_path / "scores.jsonl", "boats")


def test_the_file_appears_only_when_it_is_whole(tmp_path):
    class Breaking(Scripted):
        def ask(self, records: Iterable[Record]) -> Iterator[Reply]:
            yield from super().ask(records)
            raise DataError("gone")

    with pytest.raises(DataError, match="gone"):
        judge(
            Records(caption("a")),
            "s",
            Criterion("x", RICHNESS),
            Breaking("1"),
            out=tmp_path / "scores.jsonl",
        )
    assert not (tmp_path / "scores.jsonl").exists()


def test_positions_and_progress(tmp_path):
    seen: list[None] = []
    source = Records(*(caption(str(n)) for n in range(9)))
    counts = judge(
        source,
        "s",
        Criterion("x", ALIGNMENT),
        Scripted(*"12345"),
        out=tmp_path / "deep" / "scores.jsonl",
        positions=range(2, 7),
        report=lambda: seen.append(None),
    )
    assert [line["position"] for line in lines(tmp_path / "deep" / "scores.jsonl")] == [
        2,
        3,
        4,
        5,
        6,
    ]
    assert len(seen) == sum(counts.scores.values()) == 5
    assert counts == JudgeCounts(counts.scores, 0, 0)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("3", 3),
        (" 5.\n", 5),
        ("**4**", 4),
        ("Score: 2", 2),
        ("4/5", 4),
        ("4 out of 5", 4),
        ('{"score": 1}', 1),
        ("I give 3, yes, 3.", 3),
        ("0", None),
        ("6", None),
        ("10", None),
        ("3.5", None),
        ("3 or 4", None),
        ("-", None),
        ("good", None),
        ("", None),
    ],
)
def test_a_score_is_the_only_number_from_one_to_five(text, score):
    assert Criterion("x", "{caption}").score(text) == score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Yes.", 1),
        ("no", 0),
        ("**NO**", 0),
        ("yes and no", None),
        ("maybe", None),
        ("nobody", None),
    ],
)
def test_yes_and_no(text, score):
    assert Criterion("x", "{caption}", "yes-no").score(text) == score


def test_the_prompt_shows_the_images_and_the_caption():
    record = prompt_record(
        caption("a", "A {caption} in braces, 50 % off.", images=2), QUESTIONS["richness"]
    )
    (turn,) = record.turns
    assert turn.role == "user"
    assert turn.text.startswith("<image>\n<image>\nYou rate")
    assert turn.text.count("<image>") == len(record.images) == 2
    assert "Text: A {caption} in braces, 50 % off.\n" in turn.text
    assert record.id == "a"


def test_a_conversation_is_shown_with_its_questions():
    turns = (
        Turn("user", "<image>\nWhat?"),
        Turn("assistant", "A boat."),
        Turn("user", "Red?"),
        Turn("assistant", "Yes."),
    )
    text = caption_text(Record("x", turns, (PICTURE,)))
    assert text == "Question: What?\nAnswer: A boat.\nQuestion: Red?\nAnswer: Yes."


@pytest.mark.parametrize("prompt", [*QUESTIONS.values(), *PAIRS])
def test_shipped_prompts_hold_one_caption(prompt):
    assert prompt.count("{caption}") == 1


def test_prompts_are_read_from_a_file(tmp_path):
    (tmp_path / "ask.txt").write_text("Is {caption} short?\n---\n\nIs {caption} long?\n")
    assert read_prompts(tmp_path / "ask.txt") == ("Is {caption} short?", "Is {caption} long?")


@pytest.mark.parametrize(
    ("text", "message"), [("Is it short?", "'Is it short"), ("\n", "holds nothing"), (None, "rich")]
)
def test_files_that_hold_no_prompt_are_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "ask.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_prompts(tmp_path / "ask.txt")


def test_records_that_cannot_be_asked_about_keep_their_place_at_the_end():
    source = Records(None, caption("b"), None, None)
    asked = list(ask_about(source, lambda record, _: record, Scripted("x"), range(4)))
    assert [(item.position, item.reply.text) for item in asked] == [
        (0, ""),
        (1, "x"),
        (2, ""),
        (3, ""),
    ]
    assert [item.reply.error is None for item in asked] == [False, True, False, False]
