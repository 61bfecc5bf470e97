"""Which sets of a suite can be run, and what is missing for the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sailvit.core.errors import DataError
from sailvit.evaluation.scoring.kinds import Kind
from sailvit.evaluation.suites import demo
from sailvit.evaluation.suites.sets import OFFICIAL, QuestionSet, known_set, named_set
from sailvit.evaluation.suites.tables import QuestionTable

Suite = Literal["opencompass", "demo"]
"""`opencompass`: files that lie in a folder; `demo`: drawn ones."""
SUITES: tuple[Suite, ...] = get_args(Suite)
"""All suites."""


@dataclass(frozen=True)
class PlannedSet:
    """A set whose table is there."""

    questions: QuestionSet
    """The set."""
    table: QuestionTable
    """Its questions."""
    note: str = ""
    """What must be said of the file; empty: nothing."""


@dataclass(frozen=True)
class Plan:
    """What a suite comes to in a folder."""

    sets: tuple[PlannedSet, ...]
    """Sets that can be run."""
    missing: tuple[QuestionSet, ...]
    """Sets whose file is not there."""


def read_suite(name: str) -> Suite:
    """The suite of that name; DataError for another."""
    for known in SUITES:
        if known == name:
            return known
    raise DataError(f"there is no suite {name!r}; write {' or '.join(SUITES)}")


def plan_suite(
    suite: Suite,
    folder: Path,
    *,
    names: Sequence[str] = (),
    kinds: Mapping[str, Kind] | None = None,
    images: Path | None = None,
) -> Plan:
    """The sets of a suite whose tables lie in `folder`.

    `names` takes these instead of the suite's: names of sets, or paths of tables of your own,
    whose kind is what `kinds` or their name and columns say. `images` is the folder of images
    that tables name by path; None: that of each table.

    Raises:
        DataError: a table cannot be read, or two have one name.
    """
    members = {each.name: each for each in (OFFICIAL if suite == "opencompass" else demo.SETS)}
    found, missing = [], []
    _refuse_twice(names)
    for name in names or members:
        path = Path(name) if name.endswith(".tsv") else folder / f"{name}.tsv"
        known = members.get(name) or known_set(name)
        if path.is_file():
            found.append(_planned(path, known, (kinds or {}).get(path.stem), images))
        else:
            missing.append(known or QuestionSet(path.stem, "mcq"))
    return Plan(tuple(found), tuple(missing))


def _refuse_twice(names: Sequence[str]) -> None:
    """DataError where two tables have one name, by which predictions and scores are kept."""
    known: dict[str, str] = {}
    for name in names:
        stem = Path(name).stem if name.endswith(".tsv") else name
        if stem in known:
            raise DataError(
                f"{known[stem]} and {name} are both called {stem}, by which scores are kept;"
                " name each set once, and rename one of two tables"
            )
        known[stem] = name


def _planned(
    path: Path, known: QuestionSet | None, kind: Kind | None, images: Path | None
) -> PlannedSet:
    table = QuestionTable(path, images)
    questions = known if known and not kind else named_set(path.stem, table.rows, kind)
    return PlannedSet(questions, table, _note(questions, table))


def whereabouts(questions: QuestionSet, folder: Path) -> str:
    """Where a missing file belongs and where to get it."""
    source = f"; get it from {questions.url}" if questions.url else ""
    return f"{folder / questions.name}.tsv is missing{source}"


def _note(questions: QuestionSet, table: QuestionTable) -> str:
    if questions.md5 is None or table.md5 == questions.md5:
        return ""
    return (
        f"MD5 {table.md5} is not that of the official file ({questions.md5}): its scores are"
        " not comparable with published ones"
    )
