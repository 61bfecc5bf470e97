"""Exact match per task, its mean over tasks, and the evaluation.json that the report reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sailvit.core.errors import DataError
from sailvit.core.seeding import numpy_generator


@dataclass(frozen=True)
class Question:
    """One held-out question with its right answer."""

    task: str
    """The task it belongs to."""
    question: str
    """What the model was asked, as plain text."""
    answer: str
    """The right answer."""
    image: str | None = None
    """The image as a `data:` URI, for questions that may be shown in the report."""


@dataclass(frozen=True)
class Gain:
    """Difference of two means over tasks, with a confidence interval."""

    mean: float
    """Refined minus base, of the mean over tasks; 0.15 is 15 points."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    level: float
    """Share of resampled gains inside the interval."""


def task_scores(tasks: Sequence[str], correct: Sequence[bool]) -> dict[str, float]:
    """Share of right answers per task, in the order tasks first appear."""
    return {task: float(np.mean(values)) for task, values in _by_task(tasks, correct).items()}


def mean_score(scores: Mapping[str, float]) -> float:
    """Unweighted mean over tasks, so that a task with more questions counts no more; 0 without
    tasks.
    """
    return sum(scores.values()) / len(scores) if scores else 0.0


def gain(
    tasks: Sequence[str],
    base: Sequence[bool],
    refined: Sequence[bool],
    *,
    seed: int,
    draws: int = 2000,
    level: float = 0.95,
) -> Gain:
    """Gain of `refined` over `base` with a paired bootstrap interval: questions are redrawn
    within each task.

    It covers the choice of questions only, not the noise between training seeds.
    """
    # Paired: a question that is hard for both models cancels out, so the interval is narrower
    # than that of two separate scores.
    rng = numpy_generator(seed, "evaluation", "bootstrap")
    differences = _by_task(tasks, [float(r) - float(b) for b, r in zip(base, refined, strict=True)])
    if not differences:
        raise DataError("a gain needs at least one question; found none")
    redrawn = [
        rng.choice(values, size=(draws, len(values))).mean(axis=1)
        for values in differences.values()
    ]
    low, high = np.quantile(np.mean(redrawn, axis=0), [(1 - level) / 2, (1 + level) / 2])
    centre = float(np.mean([np.mean(values) for values in differences.values()]))
    return Gain(mean=centre, low=float(low), high=float(high), level=level)


def evaluation_json(
    questions: Sequence[Question],
    predictions: Mapping[str, Sequence[str]],
    correct: Mapping[str, Sequence[bool]],
    *,
    labels: Mapping[str, str],
    seed: int = 0,
    shown: int = 2,
) -> dict[str, Any]:
    """The value of evaluation.json: scores per model, `shown` examples per task, and the gain
    of `refined` over `base`. `predictions` and `correct` say per model what was answered to each
    question, and whether that is right.

    Examples are drawn at random, not chosen, so that they show what the scores show.
    """
    tasks = [question.task for question in questions]
    value: dict[str, Any] = {
        "models": {
            model: _entry(labels.get(model, model), tasks, hits) for model, hits in correct.items()
        },
        "examples": [
            _example(i, questions[i], predictions, correct) for i in _drawn(tasks, shown, seed)
        ],
    }
    if {"base", "refined"} <= correct.keys() and questions:
        value["gain"] = asdict(gain(tasks, correct["base"], correct["refined"], seed=seed))
    return value


def _entry(label: str, tasks: Sequence[str], hits: Sequence[bool]) -> dict[str, Any]:
    """One model's scores."""
    scores = task_scores(tasks, hits)
    return {"label": label, "mean": mean_score(scores), "tasks": scores, "count": len(hits)}


def _example(
    index: int,
    question: Question,
    predictions: Mapping[str, Sequence[str]],
    correct: Mapping[str, Sequence[bool]],
) -> dict[str, Any]:
    """One question with every model's answer."""
    return {
        **asdict(question),
        "predictions": {model: texts[index] for model, texts in predictions.items()},
        "correct": {model: hits[index] for model, hits in correct.items()},
    }


def _by_task(tasks: Sequence[str], values: Sequence[float]) -> dict[str, list[float]]:
    """Values grouped by task, in the order tasks first appear."""
    grouped: dict[str, list[float]] = {}
    for task, value in zip(tasks, values, strict=True):
        grouped.setdefault(task, []).append(value)
    return grouped


def _drawn(tasks: Sequence[str], shown: int, seed: int) -> list[int]:
    """Indices of at most `shown` random questions per task, task by task."""
    order = numpy_generator(seed, "evaluation", "examples").permutation(len(tasks)).tolist()
    return [
        i for task in dict.fromkeys(tasks) for i in [j for j in order if tasks[j] == task][:shown]
    ]
