"""What is measured on the model of a cell, by the kinds that studies name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sailvit.api.evaluation import evaluate
from sailvit.api.probing import WORLD_SIZE, probe
from sailvit.api.study.texts import text_loss
from sailvit.core.errors import DataError
from sailvit.core.formatting import counted
from sailvit.core.recipe import ModelConfig
from sailvit.core.study.definition import Measure
from sailvit.distributed.processes import my_device
from sailvit.evaluation.probes.drawn import WORLD, write_glyphs
from sailvit.evaluation.probes.running import PROBES, Probing
from sailvit.evaluation.scores import mean_score, task_scores
from sailvit.evaluation.scoring.rules import Rules
from sailvit.evaluation.scoring.short_answers import equal_phrases
from sailvit.evaluation.suites.demo import SETS, write_suite
from sailvit.evaluation.suites.evaluated import Asking, ModelScores
from sailvit.evaluation.suites.planning import Plan, plan_suite
from sailvit.evaluation.world import held_out
from sailvit.inference.answers import answer
from sailvit.models.loading.build import build
from sailvit.models.loading.quiet import quietly
from sailvit.synthetic.world.tasks import EVAL_TASKS

Values = dict[str, Any]
"""`mean` (of all), `scores` (by task), and `answers`: per task a text with a 1 for every right
answer and a 0 for every other one, so that two models can be compared question by question; no
answers where they are not all right or wrong."""


@dataclass(frozen=True)
class Trained:
    """The model after a step of a cell."""

    config: ModelConfig
    """Its parts, and how they join."""
    seed: int
    """Seed of what was drawn for it."""
    run: Path | None
    """The run folder of its last training; None where the step was left out."""


@dataclass(frozen=True)
class Drawn:
    """What is drawn for a cell's measures."""

    seed: int
    """The cell's seed, which draws questions, texts and pictures."""
    folder: Path
    """Where pictures are kept for other cells of the same seed."""


def measured(measure: Measure, trained: Trained, drawn: Drawn) -> Values:
    """The values of one measure.

    Raises:
        DataError: the measure cannot be taken of this model, or comes to no finite number.
    """
    values = MEASURES[measure.kind](measure, trained, drawn)
    # One such number would make every interval and test of the study that.
    if not math.isfinite(values["mean"]):
        raise DataError(
            f"the model of step {measure.of} gives {values['mean']} and no finite number, so its"
            " training has diverged; lower its rates"
        )
    return values


def _world(measure: Measure, trained: Trained, drawn: Drawn) -> Values:
    with quietly():
        bundle = build(trained.config, trained.seed)
    bundle.mllm.to(my_device()).eval()
    asked = held_out(measure.tasks or EVAL_TASKS, measure.per_task, drawn.seed)
    records = [record for _, record in asked]
    pairs = zip(answer(bundle, records), records, strict=True)
    hits = [equal_phrases(said, [record.turns[-1].text]) == 1 for said, record in pairs]
    tasks = [task for task, _ in asked]
    credits = {task: [h for t, h in zip(tasks, hits, strict=True) if t == task] for task in tasks}
    return _values(task_scores(tasks, hits), credits)


def _suite(measure: Measure, trained: Trained, drawn: Drawn) -> Values:
    if trained.run is None:
        raise DataError(
            f"step {measure.of} is left out, so that there is no model to ask the suite's questions;"
            " measure a step that every cell has"
        )
    with TemporaryDirectory(prefix="sailvit-") as scratch:
        plan = _planned(measure, Path(scratch) / "demo", drawn.seed)
        style = Asking(style="bare" if measure.suite == "demo" else "vlmevalkit")
        (found,) = evaluate([trained.run], plan, Path(scratch) / "out", Rules(), style)
    return _suite_values(found)


def _planned(measure: Measure, place: Path, seed: int) -> Plan:
    """The sets of a suite; those of the demo's are drawn into a folder."""
    folder = Path(measure.data[0] if measure.data else "LMUData")
    if measure.suite == "demo":
        folder = place
        wanted = [each for each in SETS if not measure.tasks or each.name in measure.tasks]
        write_suite(folder, measure.per_task, seed, wanted)
    plan = plan_suite(measure.suite, folder, names=measure.tasks, kinds={})
    # Cells with other sets could not be compared; of a suite without names, its folder decides.
    if plan.missing and (measure.tasks or not plan.sets):
        missing = ", ".join(each.name for each in plan.missing)
        raise DataError(f"{folder} lacks tables of the suite ({missing}); see `data` and `tasks`")
    return plan


def _suite_values(found: ModelScores) -> Values:
    for name, score in found.scores.items():
        if score.score is None:
            raise DataError(
                f"{name} has no score in a study, which has no judge ({'; '.join(score.notes)});"
                " leave it out of `tasks`, or mend its table"
            )
        if failed := found.failed[name]:
            raise DataError(
                f"{counted(failed, 'question')} of {name} could not be asked, which would count as"
                " misses; `sailvit evaluate` says why: mend its table or its images"
            )
    scores = {name: (each.score or 0.0) / 100 for name, each in found.scores.items()}
    credits = {n: [answer.credit for answer in s.answers] for n, s in found.scores.items()}
    return _values(scores, credits)


def _probe(measure: Measure, trained: Trained, drawn: Drawn) -> Values:
    data = [_pictures(measure, each, drawn) for each in measure.data or [WORLD]]
    with TemporaryDirectory(prefix="sailvit-") as scratch:
        # Features are of this tower alone, so that they go with the cell.
        how = Probing(
            cache=Path(scratch),
            probes=tuple(measure.tasks),
            layers="last",
            threads=1,
            seed=drawn.seed,
        )
        found = probe({"tower": trained.config.tower}, data, how).own("tower")
    main = {f"{each.probe} {each.set} {each.metric}": each for each in found if each.main}
    return _values(
        {name: each.value / 100 for name, each in main.items()},
        {name: each.hits.ravel().tolist() for name, each in main.items() if each.binary},
    )


def _pictures(measure: Measure, data: str, drawn: Drawn) -> Path:
    """A measure's data as `sailvit probe` takes them; of the world, where classes are all that is
    asked for, its glyphs, which all cells of a seed share.
    """
    if data == WORLD and measure.tasks and set(measure.tasks) <= set(PROBES["classes"]):
        return write_glyphs(drawn.folder, *WORLD_SIZE, drawn.seed)
    return Path(data)


def _text(measure: Measure, trained: Trained, drawn: Drawn) -> Values:
    assert measure.source is not None
    with quietly():
        bundle = build(trained.config, trained.seed)
    bundle.mllm.to(my_device()).eval()
    found = text_loss(bundle, measure.source, measure.per_task, drawn.seed)
    value = found.loss / found.tokens
    return {**_values({"text": value}, {}), "texts": found.texts, "tokens": found.tokens}


def _values(scores: Mapping[str, float], credits: Mapping[str, Sequence[float]]) -> Values:
    """What a cell's file holds of a measure."""
    whole = all(np.isin(each, (0, 1)).all() for each in credits.values())
    answers = {
        name: "".join(str(int(hit)) for hit in each) for name, each in credits.items() if whole
    }
    return {"mean": mean_score(scores), "scores": dict(scores), "answers": answers}


MEASURES: dict[str, Callable[[Measure, Trained, Drawn], Values]] = {
    "world": _world,
    "suite": _suite,
    "probe": _probe,
    "text": _text,
}
"""Measures by kind."""
