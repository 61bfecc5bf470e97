"""Our verdict on single answers of every kind; compared with VLMEvalKit's."""

from __future__ import annotations

from typing import Any

from sailvit.evaluation.scoring import multiple_choice
from sailvit.evaluation.scoring.cells import NOTHING, read_back
from sailvit.evaluation.scoring.graded import extract, grade, is_solved
from sailvit.evaluation.scoring.judging import CannedJudge
from sailvit.evaluation.scoring.matching import infer_choice
from sailvit.evaluation.scoring.multiple_choice import Choice
from sailvit.evaluation.scoring.ocr import is_read
from sailvit.evaluation.scoring.rules import Rules
from sailvit.evaluation.scoring.short_answers import MEASURES, right_answers
from sailvit.evaluation.scoring.yes_no import infer_yes_no


def ours(kind: str, case: dict[str, Any], matcher: Any) -> Any:
    """Our verdict on a case, in JSON's types."""
    if kind == "matching":
        return infer_choice(case["answer"], case["options"], matcher)
    if kind == "yes-no":
        return infer_yes_no(case["answer"], matcher)
    if kind in MEASURES:
        return MEASURES[kind](case["answer"], right_answers(case["golds"]), matcher)
    if kind == "ocrbench":
        return is_read(case["answer"], right_answers(case["golds"]), case["category"])
    if kind == "mathvista":
        judge = CannedJudge("canned", {"1": case["replies"]} if case["replies"] else {})
        final, _ = extract(case["row"], case["answer"], Rules(matcher, judge))
        # An empty reply is nothing once it was in a file.
        return is_solved(case["row"], NOTHING if final == "" else final, matcher)
    if kind == "mmvet":
        judge = CannedJudge("canned", {"1": case["replies"]})
        return grade(
            {"index": "1", "question": "q", "answer": "a"}, "x", Rules(matcher, judge)
        ).credit
    if kind == "file":
        return [str(cell) for cell in read_back(case["texts"], matcher)]
    options, golds = case["options"], case["golds"]
    choices = [
        Choice("1", "q", options, gold, answer)
        for gold, answer in zip(golds, case["answers"], strict=True)
    ]
    judge = CannedJudge("canned", {"1": case["replies"]}) if case["replies"] else None
    if kind == "circular":
        return multiple_choice.score_rotations(choices, Rules(matcher, judge)).credit
    only = multiple_choice.closed(choices[0]) if kind == "mmmu" else choices[0]
    return multiple_choice.score_choice(only, Rules(matcher, judge)).credit
