"""Scores of files and of predictions, joined with the tables that hold the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sailvit.core.errors import DataError
from sailvit.evaluation.scoring.cells import Cell
from sailvit.evaluation.scoring.kinds import Cost, Kind, judge_cost, score_set
from sailvit.evaluation.scoring.results import SetScore
from sailvit.evaluation.scoring.rows import typed_rows
from sailvit.evaluation.scoring.rules import Rules
from sailvit.evaluation.suites.files import read_predictions, set_name
from sailvit.evaluation.suites.sets import QuestionSet, named_set


@dataclass(frozen=True)
class ScoredSet:
    """A set with its score."""

    questions: QuestionSet
    """The set."""
    score: SetScore
    """Its score."""


def set_of_file(
    path: Path,
    rules: Rules,
    *,
    name: str | None = None,
    kind: Kind | None = None,
    answers: Sequence[Mapping[str, str]] | None = None,
) -> QuestionSet:
    """The set of a file of predictions; the arguments are those of `score_file`."""
    questions, _, _ = _read(path, rules, name, kind, answers)
    return questions


def score_file(
    path: Path,
    rules: Rules,
    *,
    name: str | None = None,
    kind: Kind | None = None,
    answers: Sequence[Mapping[str, str]] | None = None,
) -> ScoredSet:
    """The score of a file of predictions.

    `name` is the set's; None: what the file's name says. `kind` None: what the set says.
    `answers` are the rows of the set's own table, which then stand for those of the file.

    Raises:
        DataError: the file has no predictions, or not the columns that the kind needs.
    """
    questions, rows, predictions = _read(path, rules, name, kind, answers)
    score = score_set(questions.kind, rows, predictions, rules)
    if answers is not None and len(answers) > len(rows):
        note = f"{len(rows)} of the set's {len(answers)} questions"
        score = replace(score, notes=(*score.notes, note))
    return ScoredSet(questions, score)


def file_cost(
    path: Path,
    rules: Rules,
    *,
    name: str | None = None,
    kind: Kind | None = None,
    answers: Sequence[Mapping[str, str]] | None = None,
) -> Cost:
    """What a judge would be asked to score the file; the arguments are those of `score_file`."""
    questions, rows, predictions = _read(path, rules, name, kind, answers)
    return judge_cost(questions.kind, rows, predictions, rules)


def _read(
    path: Path,
    rules: Rules,
    name: str | None,
    kind: Kind | None,
    answers: Sequence[Mapping[str, str]] | None,
) -> tuple[QuestionSet, list[dict[str, Cell]], list[Cell]]:
    rows, predictions = read_predictions(path, rules.matcher)
    if answers is not None:
        rows, predictions = joined(rows, predictions, answers, path)
    questions = named_set(name or set_name(path), rows, kind)
    return questions, typed_rows(rows), predictions


def joined(
    rows: Sequence[Mapping[str, str]],
    predictions: Sequence[Cell],
    answers: Sequence[Mapping[str, str]],
    path: Path,
) -> tuple[list[dict[str, str]], list[Cell]]:
    """Rows of the set's own table for the predictions of a file, found by index.

    Raises:
        DataError: the file holds a question that the table does not.
    """
    known = {row["index"]: row for row in answers}
    strange = [row.get("index", "") for row in rows if row.get("index") not in known]
    if strange:
        raise DataError(
            f"{path} has {len(strange)} questions that the set does not, such as index"
            f" {strange[0]!r}; expected predictions of this set, or a part of them"
        )
    return [dict(known[row["index"]]) for row in rows], list(predictions)
