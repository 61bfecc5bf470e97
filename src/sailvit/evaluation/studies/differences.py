"""Differences between two levels at every setting of the other factors, paired by seed.

The unit is the seed: its training and its questions are drawn anew, and both levels share them.
A few seeds say little about their own spread, so that one spread is taken for all differences of
a study, as in an analysis of variance: the mean of their variances, with the degrees of freedom
of all together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sailvit.core.errors import DataError
from sailvit.core.seeding import numpy_generator
from sailvit.core.study.folder import DONE
from sailvit.core.study.units import Unit
from sailvit.evaluation.comparison import paired_p_value

Values = Mapping[str, Any]
"""A cell's file."""


@dataclass(frozen=True)
class Asked:
    """A difference that a study asks for."""

    measure: str
    """What is compared."""
    unit: Unit
    """What it is counted in."""
    factor: str
    """The factor of the two levels."""
    better: str
    """The level that may be better."""
    than: str
    """The level it is compared with."""
    others: tuple[tuple[str, str], ...]
    """The levels of the other factors."""


@dataclass(frozen=True)
class Difference:
    """A difference between two levels."""

    asked: Asked
    """Which one."""
    seeds: tuple[int, ...]
    """Seeds of which both cells are there."""
    than: float | None
    """Mean of the level compared with, in the measure's unit; None without a seed."""
    better: float | None
    """Mean of the other level."""
    mean: float | None
    """Mean difference; what is better has the sign that the unit says."""
    error: float | None
    """Standard error of the mean difference over seeds; None where no spread is known."""
    low: float | None
    """Lower end of its 95 % interval over seeds."""
    high: float | None
    """Its upper end."""
    question_p: float | None
    """Chance of a difference as large if these very models were equal, over the choice of
    questions alone."""
    tasks: Mapping[str, float]
    """Mean difference per task."""


@dataclass(frozen=True)
class Spread:
    """How much differences vary from seed to seed."""

    deviation: float
    """Standard deviation of a single seed's difference, in the measure's unit."""
    freedom: int
    """Degrees of freedom of that number."""


def found_cells(cells: Iterable[Values], asked: Asked, level: str) -> dict[int, Values]:
    """The finished cells at a level of the asked difference, by seed."""
    wanted = {**dict(asked.others), asked.factor: level}
    return {
        cell["seed"]: cell["values"][asked.measure]
        for cell in cells
        if cell["status"] == DONE and cell["levels"] == wanted and asked.measure in cell["values"]
    }


def spread_of(cells: Sequence[Values], every: Iterable[Asked]) -> Spread | None:
    """The spread of all differences together; None where none has two seeds."""
    squares, freedom = 0.0, 0
    for asked in every:
        seen = _seen(asked.unit, *_pairs(cells, asked))
        if len(seen) > 1:
            squares += float(((seen - seen.mean()) ** 2).sum())
            freedom += len(seen) - 1
    return Spread(math.sqrt(squares / freedom), freedom) if freedom else None


def difference(cells: Sequence[Values], asked: Asked, spread: Spread | None) -> Difference:
    """The difference, with an interval from the spread of all."""
    one, other = _pairs(cells, asked)
    seen, scale = _seen(asked.unit, one, other), asked.unit.scale
    if not len(seen):
        return Difference(asked, (), None, None, None, None, None, None, None, {})
    mean = float(seen.mean())
    error = None if spread is None else spread.deviation / math.sqrt(len(seen))
    reach = 0.0 if error is None or spread is None else error * _quantile(spread.freedom)
    return Difference(
        asked=asked,
        seeds=tuple(one),
        than=scale * float(np.mean([values["mean"] for values in one.values()])),
        better=scale * float(np.mean([values["mean"] for values in other.values()])),
        mean=mean,
        error=error,
        low=None if error is None else mean - reach,
        high=None if error is None else mean + reach,
        question_p=_question_p(one, other),
        tasks=_by_task(asked.unit, one, other),
    )


def p_value(found: Difference, spread: Spread | None, by: float = 0.0) -> float | None:
    """Two-sided chance of a mean as far from a gain of `by`, by Student's t; None without a
    spread.
    """
    if found.mean is None or found.error is None or spread is None:
        return None
    apart = abs(found.asked.unit.gain(found.mean) - by)
    # Without any spread Student's t would be infinite, or undefined where the means are equal too.
    if found.error == 0.0:
        return 0.0 if apart else 1.0
    return float(2 * stats.t.sf(apart / found.error, spread.freedom))


def _quantile(freedom: int) -> float:
    return float(stats.t.ppf(0.975, freedom))


def _pairs(cells: Sequence[Values], asked: Asked) -> tuple[dict[int, Values], dict[int, Values]]:
    """Values of both levels by seed, for the seeds that both have.

    Raises:
        DataError: they are of several sets of tasks.
    """
    one, other = (found_cells(cells, asked, level) for level in (asked.than, asked.better))
    # A seed of which one cell failed is no pair; the mean of the rest stays fair.
    both = sorted(one.keys() & other.keys())
    _refuse_other_tasks(asked, [side[seed] for side in (one, other) for seed in both])
    return {seed: one[seed] for seed in both}, {seed: other[seed] for seed in both}


def _refuse_other_tasks(asked: Asked, values: Sequence[Values]) -> None:
    """DataError where means of several sets of tasks would be compared."""
    tasks = sorted({tuple(sorted(each["scores"])) for each in values}, key=len)
    if len(tasks) > 1:
        few, many = (", ".join(each) for each in (tasks[0], tasks[-1]))
        raise DataError(
            f"measure {asked.measure} holds {few} in some cells of {asked.factor} {asked.than} and"
            f" {asked.better}, and {many} in others, so their means cannot be compared; remove the"
            " files of these cells and run the study again, which measures them anew"
        )


def _seen(unit: Unit, one: Mapping[int, Values], other: Mapping[int, Values]) -> np.ndarray:
    """float[S]: the difference of every seed."""
    return np.array([unit.scale * (other[seed]["mean"] - one[seed]["mean"]) for seed in one])


def _by_task(
    unit: Unit, one: Mapping[int, Values], other: Mapping[int, Values]
) -> dict[str, float]:
    tasks = next(iter(one.values()))["scores"]
    return {
        task: unit.scale
        * float(np.mean([other[s]["scores"][task] - one[s]["scores"][task] for s in one]))
        for task in tasks
    }


def _question_p(one: Mapping[int, Values], other: Mapping[int, Values]) -> float | None:
    """McNemar's exact test over the questions of all seeds; None where answers were not kept."""
    first, second = _answers(one), _answers(other)
    # Seeds drawn with other sizes hold other questions, which are no pairs.
    if not first or {k: len(v) for k, v in first.items()} != {k: len(v) for k, v in second.items()}:
        return None
    changes = [_credits(second[key]) - _credits(hits) for key, hits in first.items()]
    # Credits are 0 or 1, so that nothing is drawn at random.
    return paired_p_value(np.concatenate(changes), numpy_generator(0, "signs"))


def _answers(seeds: Mapping[int, Values]) -> dict[tuple[int, str], str]:
    """Right and wrong answers as texts of 1 and 0, by seed and task."""
    return {
        (seed, task): hits
        for seed, values in seeds.items()
        for task, hits in values.get("answers", {}).items()
    }


def _credits(hits: str) -> NDArray[np.float64]:
    return np.array([float(hit) for hit in hits])
