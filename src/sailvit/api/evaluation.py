"""Evaluation of saved models on suites of questions: predictions, files, scores, comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from sailvit.api.models import load_run
from sailvit.api.predicting import plain_predictions, sail_predictions
from sailvit.core.errors import DataError, RunError, one_line
from sailvit.core.outputs import refuse_foreign_file
from sailvit.core.ownership import others
from sailvit.core.run import write_json
from sailvit.dataprep.annotate.transport import EndpointError
from sailvit.distributed.processes import barrier, rank
from sailvit.evaluation.scoring.cells import Cell, read_back
from sailvit.evaluation.scoring.kinds import Cost, judge_cost, score_set
from sailvit.evaluation.scoring.results import SetScore
from sailvit.evaluation.scoring.rows import Row, lowered
from sailvit.evaluation.scoring.rules import Rules
from sailvit.evaluation.suites.average import opencompass_average
from sailvit.evaluation.suites.evaluated import Asking, ModelScores, results, settings_of
from sailvit.evaluation.suites.files import write_jsonl, write_xlsx
from sailvit.evaluation.suites.planning import Plan, PlannedSet
from sailvit.evaluation.suites.predictions import (
    Predict,
    Prediction,
    PredictionStore,
    predict_set,
)
from sailvit.evaluation.suites.prompts import changed, form_of
from sailvit.evaluation.suites.shown import write_answers, write_questions
from sailvit.evaluation.suites.tilings import told_tiles
from sailvit.inference.generation import read_options
from sailvit.inference.model import RunModel

RESULTS = "results.json"
"""Scores of all models in the folder of an evaluation, by which the folder is known."""
_BESIDE = ("affinity.json", "probe.json", "probe_comparison.json", "report.html")
"""What other commands may have written there, for one page about all."""


Seen = Callable[[str, int, int], None]
"""Takes `model, set`, predictions that are there, and predictions of all."""


def labels_of(models: Sequence[Path]) -> list[str]:
    """Short names of models, each different: the last parts of their paths that tell them apart."""
    for parts in range(1, 6):
        labels = ["-".join(path.resolve().parts[-parts:]) for path in models]
        if len(set(labels)) == len(models):
            return labels
    raise DataError("two of the models are the same; name each once")


def refuse_foreign(out: Path) -> None:
    """RunError for a file, a folder that holds files and is no evaluation's, or another's page."""
    refuse_foreign_file(out / "report.html")
    if out.is_dir() and not (out / RESULTS).is_file() and not list(out.glob("*/*.rank*.jsonl")):
        found = [name for name in others(out) if name not in _BESIDE]
        if found:
            raise RunError(
                f"{out} holds {', '.join(found[:5])}, which no evaluation wrote; give an empty or"
                " a new folder with --out"
            )


def evaluate(
    models: Sequence[Path],
    plan: Plan,
    out: Path,
    rules: Rules,
    asking: Asking,
    *,
    spreadsheets: bool = True,
    seen: Seen = lambda what, done, total: None,
    costs: Callable[[Cost], None] = lambda cost: None,
) -> list[ModelScores]:
    """Scores of every model on the planned sets; `out` gets predictions, also as `spreadsheets`,
    and results.

    What was predicted before for the same model, prompt and settings is not computed again.
    `costs` is told what a judge will be asked, before it is.

    A set that cannot be scored has no score, and a note says why.

    Raises:
        DataError: a judge cannot be used.
        RunError: there is no model at a path, or `out` holds other files.
    """
    labels = labels_of(models)
    answers: dict[str, dict[str, list[Prediction]]] = {}
    tiles: dict[str, str] = {}
    for path, label in zip(models, labels, strict=True):
        dtype = torch.bfloat16 if asking.bf16 else None
        # One model after the other, so that memory holds one.
        model = load_run(path, asking.stage, device=asking.device, dtype=dtype)
        answers[label] = {
            each.questions.name: _predictions(model, label, each, out, asking, seen=seen)
            for each in plan.sets
        }
        tiles[label] = told_tiles(model.bundle.layout, asking.tiling)
    made = []
    if rank() == 0:
        # Before anything is scored: some sets can only be scored by the server that takes them.
        if spreadsheets:
            _write_spreadsheets(plan, answers, out)
        if rules.judge is not None:
            costs(_cost(plan, answers, rules))
        settings = settings_of(asking, rules)
        scored = (_scored(label, plan, answers[label], out, rules) for label in labels)
        made = [replace(each, tiles=tiles[each.label], settings=settings) for each in scored]
        write_json(out / RESULTS, results(made))
        write_questions(out, plan.sets, asking.limit)
    # The other processes end when the files are there.
    barrier()
    return made


def _cost(
    plan: Plan, answers: Mapping[str, Mapping[str, Sequence[Prediction]]], rules: Rules
) -> Cost:
    total = Cost(0, 0)
    for predictions in answers.values():
        for each in plan.sets:
            texts = [prediction.text for prediction in predictions[each.questions.name]]
            rows = _asked(each, len(texts))
            cells = read_back(texts, rules.matcher)
            total += judge_cost(each.questions.kind, rows, cells, rules)
    return total


def _asked(planned: PlannedSet, count: int) -> list[dict[str, Cell]]:
    """The first rows of a table as they are scored; the types are those of all its rows."""
    return [lowered(row) for row in planned.table.cells[:count]]


def _predictions(
    model: RunModel, label: str, planned: PlannedSet, out: Path, asking: Asking, *, seen: Seen
) -> list[Prediction]:
    options = read_options(asking.longest, {})
    name = planned.questions.name
    form = changed(form_of(planned.questions.kind, asking.style), asking.forms.get(name, {}))
    identity = f"{model.identity} {asking.longest}"
    predict: Predict = partial(
        plain_predictions, model.generation, options=options, batch=asking.batch
    )
    if asking.tiling == "sail":
        identity += " sail"
        predict = partial(
            sail_predictions, model, planned.questions, options=options, batch=asking.batch
        )
    return predict_set(
        planned.table,
        form,
        predict,
        PredictionStore(out / label, name),
        identity=identity,
        limit=asking.limit,
        seen=lambda done, total: seen(f"{label}, {name}", done, total),
    )


def _write_spreadsheets(
    plan: Plan, answers: Mapping[str, Mapping[str, Sequence[Prediction]]], out: Path
) -> None:
    for label, predictions in answers.items():
        for each in plan.sets:
            name = each.questions.name
            texts = [prediction.text for prediction in predictions[name]]
            rows = _asked(each, len(texts))
            write_xlsx(out / label / f"{label}_{name}.xlsx", rows, texts)


def _scored(
    label: str,
    plan: Plan,
    answers: Mapping[str, Sequence[Prediction]],
    out: Path,
    rules: Rules,
) -> ModelScores:
    scores, failed, cut = {}, {}, []
    for each in plan.sets:
        name = each.questions.name
        texts = [prediction.text for prediction in answers[name]]
        write_jsonl(out / label / f"{label}_{name}.jsonl", each.table.rows[: len(texts)], texts)
        cells = read_back(texts, rules.matcher)
        score = _score(each, _asked(each, len(texts)), cells, rules)
        if len(texts) < len(each.table):
            cut.append(name)
            score = replace(score, notes=(_told_part(each, len(texts)), *score.notes))
        scores[name] = score
        write_answers(out / label, name, scores[name])
        failed[name] = sum(bool(prediction.error) for prediction in answers[name])
    numbers = {name: score.score for name, score in scores.items()}
    judge = rules.judge.name if rules.judge else None
    average = opencompass_average(numbers, rules.matcher, judge, cut)
    return ModelScores(label, scores, failed, average)


def _told_part(planned: PlannedSet, count: int) -> str:
    """What must be said of a set whose first questions alone were asked."""
    told = f"the first {count} of its {len(planned.table)} questions"
    if planned.questions.kind == "ocrbench":
        # The scorer adds hits, as if all of the official questions had been asked.
        return f"{told}, of which all right are {count / 10:g} points"
    return told


def _score(
    planned: PlannedSet, rows: Sequence[Row], cells: Sequence[Cell], rules: Rules
) -> SetScore:
    """The score of a set, or none with the reason as its note where its table has none."""
    try:
        return score_set(planned.questions.kind, rows, cells, rules)
    except EndpointError:
        # No set would have its judge: the same command goes on from the replies that are kept.
        raise
    except DataError as error:
        note = f"no score: {one_line(error)}"
        return SetScore(None, total=len(rows), unparsed=len(rows), notes=(note,))
