"""The report: one page about a run that opens from disk, needs no network and runs no script."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from sailvit.core.outputs import refuse_foreign_file, write_output
from sailvit.core.recipe import PARTS
from sailvit.core.run import RunFolder
from sailvit.report.charts import feature_charts, loss_chart, run_chart, task_chart
from sailvit.report.drawing import Chart
from sailvit.report.monitoring import monitoring_charts
from sailvit.report.reading import RunData, StageData, read_run
from sailvit.report.templates import template

MEASURES = (
    ("samples_per_s", "Samples per second", "samples/s", False),
    ("padding", "Padding", "share of the tokens computed", True),
    ("wait", "Waiting for data", "share of the step's time", True),
    ("mfu", "Model FLOPs utilisation", "share of the device's peak", True),
)
"""What is drawn over the run: measure, title, unit, whether it is a share. The table beside it
has all medians."""

EXAMPLES = 24
"""Most sample predictions shown."""
IMAGE_BUDGET = 600_000
"""Most characters of images in the page; what comes later is shown without its image."""

# Bitmaps alone, as an SVG could hold a script.
IMAGE = re.compile(r"data:image/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]+")


@dataclass(frozen=True)
class LossGroup:
    """The curves of one objective."""

    objective: str
    """Its name."""
    charts: list[Chart]
    """One per stage that used it."""


def write_report(run: RunFolder, evaluation_run: RunFolder | None = None) -> Path:
    """Path of the written `report.html`; scores and affinity come from `evaluation_run` when
    given.
    """
    html = render(read_run(run, evaluation_run))
    refuse_foreign_file(run.report)
    write_output(run.report, html)
    return run.report


def render(data: RunData) -> str:
    """The page as HTML."""
    models = data.evaluation["models"] if data.evaluation else {}
    labels = {name: model.get("label", name) for name, model in models.items()}
    return template("report.html").render(
        data=data,
        parts=PARTS,
        losses=_losses(data.stages),
        throughput=_throughput(data.stages),
        monitoring_charts=monitoring_charts(data.monitoring, _extents(data.stages)),
        medians={stage.index: _medians(stage) for stage in data.stages},
        models=models,
        labels=labels,
        tasks=list(dict.fromkeys(task for model in models.values() for task in model["tasks"])),
        task_chart=task_chart(models) if models else None,
        examples=_examples(data),
        features=feature_charts(data.affinity["models"], labels) if data.affinity else [],
        proofs=[proof for stage in data.stages for proof in stage.proofs],
    )


def _losses(stages: list[StageData]) -> list[LossGroup]:
    """Loss charts, grouped by objective in the order they first appear."""
    objectives = dict.fromkeys(name for stage in stages for name in stage.metrics.loss)
    return [
        LossGroup(
            objective,
            [
                loss_chart(stage.name, objective, stage.metrics.step, stage.metrics.loss[objective])
                for stage in stages
                if objective in stage.metrics.loss
            ],
        )
        for objective in objectives
    ]


def _extents(stages: list[StageData]) -> list[tuple[str, int, int]]:
    """Every stage with the steps of the run at which it begins and ends; its place in the list
    is its index.
    """
    ends = list(accumulate(stage.steps for stage in stages))
    return [(stage.name, end - stage.steps, end) for stage, end in zip(stages, ends, strict=True)]


def _throughput(stages: list[StageData]) -> list[Chart]:
    """One chart per measure that has any value."""
    charts = []
    for name, title, unit, share in MEASURES:
        series = [(stage.name, stage.metrics.measures[name]) for stage in stages]
        if any(np.isfinite(values).any() for _, values in series):
            charts.append(run_chart(title, unit, series, share=share))
    return charts


def _medians(stage: StageData) -> dict[str, float]:
    """Median per measure over the stage's steps; NaN where nothing was measured."""
    kept = {name: values[np.isfinite(values)] for name, values in stage.metrics.measures.items()}
    return {
        name: float(np.median(values)) if len(values) else math.nan for name, values in kept.items()
    }


def _examples(data: RunData) -> list[dict[str, Any]]:
    """The first examples, each with its image only if that is plain bitmap data and fits the
    page's budget.
    """
    left, shown = IMAGE_BUDGET, []
    for example in (data.evaluation or {}).get("examples", [])[:EXAMPLES]:
        image = example.get("image") or ""
        usable = len(image) <= left and IMAGE.fullmatch(image) is not None
        left -= len(image) if usable else 0
        shown.append(
            {**example, "image": image if usable else None, "dropped": bool(image) and not usable}
        )
    return shown
