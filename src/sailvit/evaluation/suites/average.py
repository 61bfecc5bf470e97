"""OpenCompass' average over eight sets, or what is missing for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sailvit.core.formatting import counted
from sailvit.evaluation.scoring.matching import Matcher
from sailvit.evaluation.suites.sets import OFFICIAL

COLUMNS = tuple(dict.fromkeys(each.column for each in OFFICIAL if each.column))
"""The leaderboard's columns that the average is taken over."""


@dataclass(frozen=True)
class Average:
    """The unweighted mean over the columns."""

    value: float | None
    """From 0 to 100, rounded to one decimal; None: something is missing."""
    missing: tuple[str, ...]
    """Sets that have no score."""
    columns: Mapping[str, float]
    """The columns that have one."""
    said: str
    """What must stand beside it: split, judge and version of the rules."""


def opencompass_average(
    scores: Mapping[str, float | None],
    matcher: Matcher,
    judge: str | None,
    cut: Collection[str] = (),
) -> Average:
    """The average of a model's scores by set; `cut` are sets of which a part was asked, whose
    scores are none of theirs.

    MMBench V1.1 enters as the mean of English and Chinese. Its answers are public for DEV alone,
    the leaderboard uses TEST: the two averages are not the same.
    """
    # Tables are in order of their categories: MMMU's begins with rows that do not count, and
    # OCRBench's score is a sum over all of its questions.
    whole = {name: None if name in cut else value for name, value in scores.items()}
    columns = {}
    for column in COLUMNS:
        members = [each.name for each in OFFICIAL if each.column == column]
        values = [value for name in members if (value := whole.get(name)) is not None]
        # A column of English and Chinese counts only with both.
        if len(values) == len(members):
            columns[column] = sum(values) / len(values)
    missing = [each.name for each in OFFICIAL if each.column and whole.get(each.name) is None]
    value = round(sum(columns.values()) / len(columns), 1) if not missing else None
    return Average(value, tuple(missing), columns, _said(matcher, judge, cut))


def refusal(missing: Sequence[str]) -> str:
    """Why there is no average."""
    return f"no average: {len(missing)} of its sets have no score: {', '.join(missing)}"


def _said(matcher: Matcher, judge: str | None, cut: Collection[str]) -> str:
    asked = f"judge {judge}" if judge else "no judge"
    said = f"MMBench V1.1 DEV (not TEST), {asked}, matcher {matcher}"
    if not cut:
        return said
    return f"{said}; by --limit a part of {counted(len(cut), 'set')} was asked, which is no score"
