"""Measures of short answers: ANLS, relaxed accuracy, VQA accuracy and equal text."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sailvit.evaluation.scoring.matching import NEWEST, Matcher, is_older
from sailvit.evaluation.scoring.punctuation import plain_words

TOLERANCE = 0.05
"""Largest relative error of a number in relaxed accuracy."""
_LEAST_ANLS = 0.5
"""A similarity below it counts nothing."""
_FULL = 3
"""People of the ten that must have given an answer for full VQA accuracy."""

Measure = Callable[[str, Sequence[str], Matcher], float]
"""`(answer, right answers, matcher) -> score` from 0 to 1."""


def right_answers(cell: str) -> list[str]:
    """The right answers in a cell: those of a Python list, or the cell itself."""
    # Most cells hold one plain answer, such as `2` or `None`, which must stay as it is written.
    if cell.lstrip()[:1] != "[":
        return [cell]
    try:
        found = ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return [cell]
    return [str(item) for item in found] if isinstance(found, list) else [cell]


def anls(answer: str, golds: Sequence[str], matcher: Matcher = NEWEST) -> float:
    """Similarity to the nearest right answer, 0 where it is below one half."""
    similarity = 1 - min(_distance(gold, answer) for gold in golds)
    return similarity if similarity >= _LEAST_ANLS else 0.0


def relaxed_accuracy(answer: str, golds: Sequence[str], matcher: Matcher = NEWEST) -> float:
    """1 where a number is within five per cent of a right answer, or a text equals one apart
    from case.
    """
    given = answer.strip()
    return float(max(_is_near(given, gold, matcher) for gold in golds))


def vqa_accuracy(answer: str, golds: Sequence[str], matcher: Matcher = NEWEST) -> float:
    """Mean over the people who answered, of how many of the others agree: three are enough.

    One right answer alone has no others, so nothing is ever right then.
    """
    given = plain_words(answer, matcher)
    equal = [plain_words(gold, matcher) == given for gold in golds]
    return float(np.mean([min(1.0, (sum(equal) - own) / _FULL) for own in equal]))


def equal_text(answer: str, golds: Sequence[str], matcher: Matcher = NEWEST) -> float:
    """1 where the answer equals a right one apart from case and blanks at the ends."""
    given = answer.strip().lower()
    return float(any(gold.strip().lower() == given for gold in golds))


def mean_equal_text(answer: str, golds: Sequence[str], matcher: Matcher = NEWEST) -> float:
    """Share of the right answers that the answer equals; GQA's measure."""
    return float(np.mean([equal_text(answer, [gold]) for gold in golds]))


def equal_phrases(answer: str, golds: Sequence[str], matcher: Matcher = NEWEST) -> float:
    """1 where the answer has the phrases of a right one, parted by commas, in any order; case and
    the number of blanks do not count.

    A caption lists things, and no order of them is the right one.
    """
    return float(any(_phrases(answer) == _phrases(gold) for gold in golds))


MEASURES: Mapping[str, Measure] = {
    "anls": anls,
    "relaxed": relaxed_accuracy,
    "vqa": vqa_accuracy,
    "exact": equal_text,
    "exact-mean": mean_equal_text,
    "phrases": equal_phrases,
}
"""Measures by the name that a set's kind gives."""


def _phrases(text: str) -> Counter[str]:
    return Counter(" ".join(phrase.split()) for phrase in text.lower().split(","))


def _distance(gold: str, answer: str) -> float:
    """Edits between both, apart from case and blanks, by the longer one **as given**: blanks
    that do not count as edits still make it longer.
    """
    # In upper case some letters become two, as in the kit.
    longer = max(len(gold.upper()), len(answer.upper()))
    edits = _edits(" ".join(gold.lower().split()), " ".join(answer.lower().split()))
    return edits / longer if longer else 0.0


def _edits(one: str, other: str) -> int:
    """Levenshtein's distance."""
    previous = list(range(len(one) + 1))
    for row, letter in enumerate(other, 1):
        current = [row]
        for column, known in enumerate(one):
            least = min(previous[column], previous[column + 1], current[-1])
            current.append(previous[column] if letter == known else 1 + least)
        previous = current
    return previous[-1]


def _is_near(answer: str, gold: str, matcher: Matcher) -> bool:
    given, known = _number(answer), _number(gold)
    # Before 2025-08 both changed places: the error was relative to the answer.
    base, other = (given, known) if is_older(matcher, "2025-08") else (known, given)
    # A right answer of 0 has no relative error, so it must be met in words.
    if not base or other is None:
        return answer.lower() == gold.lower()
    return abs(other - base) / abs(base) <= TOLERANCE


def _number(text: str) -> float | None:
    """The number in a text, a percentage as its hundredth; None: it holds none."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
