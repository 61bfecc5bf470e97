"""What is measured on the model of a cell, by the kinds that studies name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sailvit.core.study.definition import Measure
from sailvit.evaluation.scores import mean_score, task_scores
from sailvit.evaluation.scoring.short_answers import equal_phrases
from sailvit.evaluation.world import held_out
from sailvit.inference.answers import answer
from sailvit.models.loading.build import ModelBundle
from sailvit.synthetic.world.tasks import EVAL_TASKS

Values = dict[str, Any]
"""`mean` (of all), `scores` (by task), and `answers`: per task a text with a 1 for every right
answer and a 0 for every other one, so that two models can be compared question by question."""


def measured(measure: Measure, bundle: ModelBundle, seed: int) -> Values:
    """The values of one measure; `seed` draws its questions."""
    return MEASURES[measure.kind](measure, bundle, seed)


def _world(measure: Measure, bundle: ModelBundle, seed: int) -> Values:
    asked = held_out(measure.tasks or EVAL_TASKS, measure.per_task, seed)
    records = [record for _, record in asked]
    pairs = zip(answer(bundle, records), records, strict=True)
    hits = [equal_phrases(said, [record.turns[-1].text]) == 1 for said, record in pairs]
    tasks = [task for task, _ in asked]
    scores = task_scores(tasks, hits)
    answers = {
        task: "".join(str(int(hit)) for each, hit in zip(tasks, hits, strict=True) if each == task)
        for task in scores
    }
    return {"mean": mean_score(scores), "scores": scores, "answers": answers}


MEASURES: dict[str, Callable[[Measure, ModelBundle, int], Values]] = {"world": _world}
"""Measures by kind."""
