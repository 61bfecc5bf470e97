"""MathVista and MM-Vet: sets whose answers a judge extracts or grades."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Sequence
from string import ascii_uppercase

import numpy as np

from sailvit.evaluation.scoring.cells import NOTHING, Cell, is_nothing
from sailvit.evaluation.scoring.judging import Inquiry, asked
from sailvit.evaluation.scoring.matching import NEWEST, Matcher, infer_choice
from sailvit.evaluation.scoring.results import ScoredAnswer
from sailvit.evaluation.scoring.rows import Row, needed, text
from sailvit.evaluation.scoring.rules import Rules

SKILLS = ("rec", "ocr", "know", "gen", "spat", "math")
"""Capabilities of MM-Vet, which its categories are made of."""
_ATTEMPTS = 5
"""Times a judge is asked, each time half a degree warmer."""
_WARMER = 0.5


def extract(row: Row, answer: Cell, rules: Rules) -> tuple[Cell, bool]:
    """The final answer within an answer to MathVista, and whether a rule found it; nothing where
    neither rules nor a judge could say.

    A rule ends it for a choice by any letter found, else only by the right number: what is a
    wrong number for the rules may still be right to a judge.
    """
    if needed(row, "question_type") == "multi_choice":
        letter = infer_choice(str(answer), choices_of(row), rules.matcher)
        if letter is not None:
            return letter, True
    elif (number := _right_number(row, answer)) is not None and number:
        # A right 0 goes to the judge as well: the kit takes it for no answer.
        return number, True
    if (judge := rules.judge) is None:
        return NOTHING, False
    prompt = rules.prompts["extract"].filled(question=text(row, "question"), prediction=str(answer))
    for attempt in range(_ATTEMPTS):
        inquiry = Inquiry(needed(row, "index"), prompt, attempt, attempt * _WARMER)
        reply = asked(judge, inquiry)
        if reply is not None:
            return reply, False
    return NOTHING, False


def is_solved(row: Row, extracted: Cell, matcher: Matcher = NEWEST) -> bool:
    """Whether an extracted answer to MathVista is right.

    Answers of type text or list never are: the kit compares them with the word None.
    """
    if needed(row, "question_type") != "multi_choice":
        return _right_number(row, extracted) is not None
    letter = infer_choice(str(extracted), choices_of(row), matcher)
    return letter is not None and letter == needed(row, "answer_option")


def choices_of(row: Row) -> dict[str, str]:
    """MathVista's choices by letter, from the list in the column `choices`."""
    return dict(zip(ascii_uppercase, listed(needed(row, "choices")), strict=False))


def listed(cell: str) -> list[str]:
    """The texts of a list in a cell; a cell that holds no list is one text."""
    try:
        found = ast.literal_eval(cell)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return [cell]
    return [str(item) for item in found] if isinstance(found, list | tuple) else [cell]


def grade(row: Row, answer: str, rules: Rules) -> ScoredAnswer:
    """A judge's grade of an answer to MM-Vet, from 0 to 1; 0 when it gives none."""
    index, gold = needed(row, "index"), needed(row, "answer")
    prompt = rules.prompts["grade"].filled(
        question=text(row, "question"),
        answer=gold.replace("<AND>", " <AND> ").replace("<OR>", " <OR> "),
        prediction=answer,
    )
    for attempt in range(_ATTEMPTS):
        inquiry = Inquiry(index, prompt, attempt, attempt * _WARMER)
        reply = None if rules.judge is None else rules.judge.reply(inquiry)
        value = _number(reply)
        if value is not None and 0 <= value <= 1:
            return ScoredAnswer(index, float(value), f"{value:g}", "judge")
    return ScoredAnswer(index, 0.0, "", "none")


def mathvista_scores(rows: Sequence[Row], answers: Sequence[ScoredAnswer]) -> dict[str, float]:
    """Per cent right: of all, per task and per skill."""
    credits: defaultdict[str, list[float]] = defaultdict(list)
    for row, answer in zip(rows, answers, strict=True):
        skills = listed(text(row, "skills")) if text(row, "skills") else []
        for name in ("Overall", text(row, "task"), *skills):
            if name:
                credits[name].append(answer.credit)
    return {name: 100 * float(np.mean(values)) for name, values in credits.items()}


def mmvet_scores(rows: Sequence[Row], answers: Sequence[ScoredAnswer]) -> dict[str, float]:
    """Mean grade in per cent: of all, per capability and per combination of them."""
    credits: defaultdict[str, list[float]] = defaultdict(list)
    for row, answer in zip(rows, answers, strict=True):
        category = text(row, "category")
        # Looked for within the text, as the kit does; no skill's name is part of another's.
        names = [skill for skill in SKILLS if skill in category]
        for name in ("Overall", *names, category.replace(",", "_")):
            if name:
                credits[name].append(answer.credit)
    return {name: 100 * float(np.mean(values)) for name, values in credits.items()}


def _right_number(row: Row, given: Cell) -> int | float | None:
    """The number in an answer if it is the right one; None: it is not, or there is none."""
    kind = needed(row, "answer_type")
    if kind not in ("integer", "float"):
        return None
    convert = int if kind == "integer" else float
    gold = row.get("answer", NOTHING)
    try:
        value, wanted = convert(given), convert(gold)
    except (ValueError, OverflowError):
        return None
    return value if value == wanted else None


def _number(reply: str | None) -> float | None:
    try:
        return None if is_nothing(reply) else float(str(reply))
    except ValueError:
        return None
