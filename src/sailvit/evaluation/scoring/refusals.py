"""What is refused before a set is scored: tables that would have a wrong number, or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sailvit.core.errors import DataError
from sailvit.evaluation.scoring.rows import Row, needed, text


def refuse_twice(rows: Sequence[Row]) -> None:
    """DataError where an index comes twice: a question that counts twice changes the score."""
    counts = Counter(needed(row, "index") for row in rows)
    index, count = counts.most_common(1)[0]
    if count > 1:
        raise DataError(
            f"index {index!r} comes {count} times; expected one answer per question: two runs may"
            " have been written to one file"
        )


def refuse_hidden(rows: Sequence[Row]) -> None:
    """DataError where no row has a right answer: test sets keep theirs to themselves."""
    if not any(text(row, "answer") for row in rows):
        found = "is empty everywhere" if "answer" in rows[0] else "is missing"
        raise DataError(
            f"column 'answer' {found}: where a set's answers are hidden, as those of MMBench's TEST"
            " are, upload the .xlsx to its server; else give a table that has them"
        )


def refuse_no_gold(rows: Sequence[Row], golds: Sequence[Sequence[str]]) -> None:
    """DataError where a row's list of right answers is empty."""
    for row, right in zip(rows, golds, strict=True):
        if not right:
            raise DataError(
                f"index {needed(row, 'index')!r} has an empty list of right answers; expected at"
                " least one: leave the row out, or write its answer"
            )
