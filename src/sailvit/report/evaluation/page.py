"""One page about an evaluation: it opens from disk, needs no network, and its only script is its
own, by whose hash the page allows it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sailvit.core.outputs import refuse_foreign_file, write_output
from sailvit.report.charts import feature_charts
from sailvit.report.drawing import Chart
from sailvit.report.evaluation.charts import (
    cloud_charts,
    drift_charts,
    layer_chart,
    probe_charts,
    set_chart,
)
from sailvit.report.evaluation.reading import EvaluationData, read_evaluation
from sailvit.report.evaluation.tables import measure_tables, probe_table, set_table
from sailvit.report.templates import template

_STYLES = ("report.css", "evaluation.css")
PAGE = "report.html"
"""The page's name in the folder."""


def write_evaluation_report(folder: Path) -> Path:
    """Path of the page about an evaluation, written into its folder.

    Raises:
        RunError: the folder is no evaluation's, or holds a page that sailvit did not write.
    """
    path = folder / PAGE
    refuse_foreign_file(path)
    write_output(path, render_evaluation(read_evaluation(folder)))
    return path


def render_evaluation(data: EvaluationData) -> str:
    """The page as HTML."""
    results = data.results or {"models": {}, "comparison": []}
    chart, beyond = set_chart(results["models"], data.sets)
    script = files("sailvit.report").joinpath("evaluation.js").read_text(encoding="utf-8")
    affinity = data.affinity or {}
    return template("evaluation.html", _STYLES).render(
        data=data,
        results=results,
        set_chart=chart,
        beyond=beyond,
        set_rows=set_table(results["models"], data.sets),
        probe_charts=probe_charts(data.probes),
        probe_rows=probe_table(data.probes, data.best_layers),
        clouds=cloud_charts(affinity.get("published", ())),
        planes=_planes(affinity.get("joint", ())),
        layers=layer_chart(affinity.get("joint", ())),
        measures=measure_tables(affinity),
        drift=drift_charts(affinity.get("drift", ())),
        left_out=affinity.get("left_out", []),
        payload=_payload(data),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _planes(entries: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """The picture of each model behind its connector, where there is any."""
    models = {each["tower"]: each["plane"] for each in entries}
    return feature_charts(models, {}) if models else []


def _payload(data: EvaluationData) -> Markup:
    """What the script reads, as JSON inside the page."""
    value: dict[str, Any] = {
        "models": data.models,
        "sets": list(dict.fromkeys(each.questions for each in data.questions)),
        "questions": [
            [
                each.questions,
                each.index,
                each.category,
                each.text,
                each.options,
                each.answer,
                each.pictures,
                each.predictions,
                each.credits,
                each.understood,
            ]
            for each in data.questions
        ],
        "pictures": data.pictures,
        "tables": _downloads(data),
    }
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Inside a script element nothing is escaped but what could end it.
    return Markup(text.replace("<", "\\u003c"))


def _downloads(data: EvaluationData) -> dict[str, list[list[Any]]]:
    """Tables that can be saved as CSV, by name; the first row is the heading."""
    tables: dict[str, list[list[Any]]] = {}
    if data.results:
        tables["scores"] = [["model", "set", "metric", "value"], *_scores(data.results["models"])]
        tables["comparison"] = _as_table(data.results["comparison"])
    tables["probes"] = _as_table(data.probes)
    if data.affinity:
        rows = [row for table in measure_tables(data.affinity) for row in table.flat()]
        heading = ["section", "measure", "tower", "value", "low", "high", "chance", "n"]
        tables["affinity"] = [heading, *rows]
    return {name: rows for name, rows in tables.items() if len(rows) > 1}


def _scores(models: Mapping[str, Any]) -> list[list[Any]]:
    return [
        [label, name, metric, value]
        for label, model in models.items()
        for name, found in model["sets"].items()
        for metric, value in {"score": found["score"], **found["metrics"]}.items()
    ]


def _as_table(entries: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    if not entries:
        return []
    return [list(entries[0]), *(list(each.values()) for each in entries)]
