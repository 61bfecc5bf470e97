"""A judge asked by a user's own prompt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sailvit.core.errors import DataError
from sailvit.evaluation.scoring.judge_prompts import (
    OWN_PROMPTS,
    USES,
    JudgePrompt,
    read_judge_prompts,
)
from sailvit.evaluation.scoring.judging import Inquiry
from sailvit.evaluation.scoring.kinds import JUDGED, KINDS, judge_cost, score_set
from sailvit.evaluation.scoring.rules import Rules

ROWS = {
    "choice": {"index": "0", "question": "which?", "A": "cat", "B": "dog", "answer": "A"},
    "yes-no": {"index": "0", "question": "which?", "answer": "Yes"},
    "extract": {
        **{"index": "0", "question": "which?", "answer": "4", "choices": "", "answer_option": ""},
        **{"question_type": "free_form", "answer_type": "integer"},
    },
    "grade": {"index": "0", "question": "which?", "answer": "cat<AND>dog", "category": "rec"},
}
OWN = {
    "choice": "letter? {question} | {options} | {prediction}",
    "yes-no": "word? {question} | {prediction}",
    "extract": "number? {question} | {prediction}",
    "grade": "grade? {question} | {answer} | {prediction}",
}
SHOWN = {
    "choice": "letter? which? | A. cat\nB. dog | hm {answer}",
    "yes-no": "word? which? | hm {answer}",
    "extract": "number? which? | hm {answer}",
    "grade": "grade? which? | cat <AND> dog | hm {answer}",
}
REPLIES = {"choice": "A", "yes-no": "Yes", "extract": "4", "grade": "1.0"}


class Listener:
    """A judge that keeps what it was asked."""

    name, concurrency = "listener", 1

    def __init__(self, reply: str) -> None:
        self.heard: list[str] = []
        self._reply = reply

    def reply(self, inquiry: Inquiry) -> str:
        self.heard.append(inquiry.prompt)
        return self._reply


def written(folder: Path, text: str) -> str:
    path = folder / "mine.txt"
    path.write_text(text)
    return str(path)


def kind_of(use: str) -> str:
    return next(kind for kind in KINDS if JUDGED.get(kind) == use)


@pytest.mark.parametrize("use", USES)
def test_each_use_is_asked_by_the_prompt_in_the_file(tmp_path, use):
    prompts = read_judge_prompts([written(tmp_path, OWN[use] + "\n")], [use])
    judge = Listener(REPLIES[use])
    # An answer that holds a place's name is put in as it is.
    made = score_set(
        kind_of(use), [ROWS[use]], ["hm {answer}"], Rules(judge=judge, prompts=prompts)
    )
    assert judge.heard == [SHOWN[use]]
    assert made.score == 100
    digest = JudgePrompt(OWN[use]).sha256
    assert made.notes == (f"the judge was asked by mine.txt (SHA-256 {digest[:12]})",)


@pytest.mark.parametrize("use", USES)
def test_without_a_file_our_own_words_are_asked_and_not_told(use):
    judge = Listener(REPLIES[use])
    made = score_set(kind_of(use), [ROWS[use]], ["hm"], Rules(judge=judge))
    assert "which?" in judge.heard[0]
    assert "{" not in judge.heard[0]
    assert made.notes == ()
    assert Rules(judge=judge).told_prompts == {}


def test_a_files_text_and_hash_are_told(tmp_path):
    prompts = read_judge_prompts([f"grade={written(tmp_path, OWN['grade'])}"], ["choice", "grade"])
    assert prompts["choice"] == OWN_PROMPTS["choice"]
    told = Rules(prompts=prompts).told_prompts
    assert told == {
        "grade": {
            "file": "mine.txt",
            # By `printf '%s' TEXT | sha256sum`.
            "sha256": "b798632c90c13e1cf2effb6e1213627417e31357748b2f326abba8917540d612",
            "text": OWN["grade"],
        }
    }


def test_the_cost_is_that_of_the_users_prompt(tmp_path):
    prompts = read_judge_prompts([written(tmp_path, OWN["yes-no"])], ["yes-no"])
    cost = judge_cost("yes-no", [ROWS["yes-no"]], ["hm"], Rules(prompts=prompts))
    assert cost.characters == len("word? which? | hm")


def test_braces_that_are_no_places_stay(tmp_path):
    text = 'Reply {"grade": 0.5}, { x } or {}: {prediction} against {answer}'
    prompt = read_judge_prompts([written(tmp_path, text)], ["grade"])["grade"]
    assert prompt.filled(prediction="a", answer="b", question="q") == (
        'Reply {"grade": 0.5}, { x } or {}: a against b'
    )


@pytest.mark.parametrize(
    ("use", "text", "found"),
    [
        ("choice", "{question} {prediction}", "lacks {options}; a prompt"),
        ("grade", "{question}", "lacks {answer}, {prediction}; a prompt"),
        ("yes-no", "{prediction} {reference}", "has {reference}, which a prompt for yes-no is not"),
        # Whoever knows the right answer reads it into others.
        ("choice", "{options} {prediction} {answer}", "has {answer}, which"),
        ("extract", "", "lacks {prediction}"),
        ("grade", "{Answer} {prediction}", "lacks {answer}"),
    ],
)
def test_missing_and_unknown_places_are_named(tmp_path, use, text, found):
    with pytest.raises(DataError, match=rf"mine\.txt {re.escape(found)}.* for {use} .*USE=FILE"):
        read_judge_prompts([written(tmp_path, text)], [use])


def test_a_file_for_two_uses_must_fit_both(tmp_path):
    path = written(tmp_path, OWN["yes-no"])
    both = read_judge_prompts([path], ["extract", "yes-no"])
    assert both["extract"].template == both["yes-no"].template == OWN["yes-no"]
    with pytest.raises(DataError, match=r"lacks {options}"):
        read_judge_prompts([path], ["choice", "yes-no"])


@pytest.mark.parametrize(
    ("given", "uses", "said"),
    [
        ("grades=mine.txt", ["grade"], "names the use 'grades'; write one of choice, yes-no"),
        ("grade=mine.txt", ["choice"], "would not be used: the sets ask it for: choice"),
        ("mine.txt", [], "would not be used: the sets never ask it"),
        ("gone.txt", ["grade"], "cannot be read"),
    ],
)
def test_what_would_not_be_used_is_refused(tmp_path, monkeypatch, given, uses, said):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, OWN["grade"])
    with pytest.raises(DataError, match=said):
        read_judge_prompts([given], uses)
