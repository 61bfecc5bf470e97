"""Answers without the marks, articles and spellings that two right answers may differ in, as in
the evaluation of VQAv2.
"""

from __future__ import annotations

import re

from sailvit.evaluation.scoring.contractions import CONTRACTIONS
from sailvit.evaluation.scoring.matching import NEWEST, Matcher

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_GROUPED = re.compile(r"\d,\d")
_PERIOD = re.compile(r"(?<!\d)\.(?!\d)")
_EVERY_PERIOD = re.compile(r"\.(?!\d)")
"""Before 2025-06 a slip in the pattern let periods after a digit go as well."""
_PERIODS = 32
"""Most periods that are removed. VLMEvalKit hands the flag re.UNICODE, which is 32, to a
parameter that counts."""
_ARTICLES = frozenset(("a", "an", "the"))
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0", **{word: str(number) for number, word in enumerate(_DIGITS)}}


def without_punctuation(text: str, matcher: Matcher = NEWEST) -> str:
    """The text with its marks removed or, where they stand between words, as spaces."""
    # Decided from the text as it was given: a mark that touches a space anywhere goes everywhere.
    grouped, made = _GROUPED.search(text) is not None, text
    for mark in _MARKS:
        touching = f"{mark} " in text or f" {mark}" in text
        made = made.replace(mark, "" if touching or grouped else " ")
    period = _EVERY_PERIOD if matcher == "before-2025-06" else _PERIOD
    return period.sub("", made, count=_PERIODS)


def plain_words(text: str, matcher: Matcher = NEWEST) -> str:
    """The text by which answers of VQAv2 are compared: lower case, numbers as digits, no
    articles, contractions with their apostrophe.
    """
    line = text.replace("\n", " ").replace("\t", " ").strip()
    bare = without_punctuation(line, matcher)
    words = [_NUMBERS.get(word, word) for word in bare.lower().split()]
    kept = [word for word in words if word not in _ARTICLES]
    return " ".join(CONTRACTIONS.get(word, word) for word in kept)
