"""A run folder's files as plain values for the page; the only module here that knows their
layout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sailvit.core.bad_records import read_quarantine
from sailvit.core.errors import RunError
from sailvit.core.run import RunFolder, read_json, read_lines

Series = NDArray[np.float64]

MEASURES = ("samples_per_s", "answer_tokens_per_s", "padding", "mfu")
"""Columns of metrics.jsonl taken as they are."""

SHOWN = ("name", "created", "sailvit", "seed", "parents", "data", "versions", "machine")
"""Keys of the manifest that the page shows as they are."""


@dataclass(frozen=True)
class Metrics:
    """Measures of one stage, one value per optimizer step; NaN: the step has no value."""

    step: Series
    """float64[N]: step within the stage, starting at 1."""
    loss: dict[str, Series]
    """float64[N] per objective."""
    measures: dict[str, Series]
    """float64[N] per name of MEASURES, and `wait`: share of the step spent waiting for data."""
    last: Mapping[str, Any]
    """The last line, whose cumulative counts hold for the stage; empty without any."""


@dataclass(frozen=True)
class Proof:
    """One proof of training."""

    when: str
    """When in the stage it was made, in words."""
    step: int
    """The step after which it was made."""
    ok: bool
    """Whether every part trained as planned."""
    rows: list[dict[str, Any]]
    """Counts and verdict per part."""


@dataclass(frozen=True)
class StageData:
    """One stage of a run, as its files describe it."""

    name: str
    """Its name in the recipe."""
    index: int
    """Its place, from 0."""
    finished: bool
    """Whether the manifest lists it; a stage that was stopped is known from its metrics
    alone."""
    train: dict[str, float]
    """Share of the learning rate per part that trained."""
    start: dict[str, str]
    """Where parts started from, when not from the stage before."""
    parts: dict[str, str]
    """Folders of the saved parts, relative to the run."""
    steps: int
    """Optimizer steps."""
    samples: int
    """Records drawn."""
    tokens: int
    """Tokens without padding."""
    seconds: float
    """Wall time."""
    metrics: Metrics
    """Per-step measurements."""
    proofs: list[Proof]
    """Proofs of training, in order."""


@dataclass(frozen=True)
class RunData:
    """Everything the page shows."""

    path: Path
    """The run folder."""
    manifest: dict[str, Any]
    """Lineage, as stored."""
    stages: list[StageData]
    """Stages in order."""
    evaluation: dict[str, Any] | None
    """evaluation.json, when made."""
    affinity: dict[str, Any] | None
    """affinity.json, when made."""
    monitoring: list[dict[str, Any]]
    """Lines of monitoring.jsonl, in order."""
    left_out: list[tuple[str, str, str, int]]
    """Stage, source and kind of what could not be read, and how often it was met."""
    recipe: str | None
    """The resolved recipe as text."""


def read_run(run: RunFolder, evaluation_run: RunFolder | None = None) -> RunData:
    """The data of a run; scores and affinity come from `evaluation_run` if it is given, as
    another run may measure this one's tower.
    """
    measured = evaluation_run or run
    manifest = read_json(run.manifest)
    with _expecting(run.path):
        return RunData(
            path=run.path,
            manifest={key: manifest[key] for key in SHOWN}
            | {"resumed": manifest.get("resumed", [])},
            stages=_read_stages(run, manifest["stages"]),
            evaluation=_read_optional(measured.evaluation),
            affinity=_read_optional(measured.affinity),
            monitoring=_read_monitoring(run),
            left_out=_read_left_out(run),
            recipe=run.recipe.read_text(encoding="utf-8") if run.recipe.exists() else None,
        )


def _read_left_out(run: RunFolder) -> list[tuple[str, str, str, int]]:
    found: Counter[tuple[str, str, str]] = Counter()
    for bad in read_quarantine(run):
        found[bad.stage, bad.source, bad.kind] += bad.count
    return [(*key, count) for key, count in found.items()]


def _read_stages(run: RunFolder, listed: list[dict[str, Any]]) -> list[StageData]:
    """Finished stages of the manifest, then a stopped one that only metrics.jsonl knows."""
    lines: dict[int, dict[int, dict[str, Any]]] = {}
    for line in read_lines(run.metrics):
        # A resumed run repeats the steps after its last save; the later line is the one that
        # led to the weights.
        lines.setdefault(line["stage_index"], {})[line["step"]] = line
    proofs: dict[int, list[Proof]] = {}
    for line in read_lines(run.proofs):
        proof = Proof(line["when"], line["step"], line["ok"], line["rows"])
        proofs.setdefault(line["stage_index"], []).append(proof)
    known = {stage["index"]: stage for stage in listed}
    return [
        _stage(index, known.get(index), list(lines.get(index, {}).values()), proofs.get(index, []))
        for index in sorted(known.keys() | lines.keys())
    ]


def _stage(
    index: int, listed: dict[str, Any] | None, lines: list[dict[str, Any]], proofs: list[Proof]
) -> StageData:
    """One stage, from the manifest where it is listed, otherwise from its metrics."""
    metrics = _metrics(lines)
    facts = listed or {
        "name": metrics.last["stage"],
        # The shares of a stage that did not end are not on file: 1 where a rate was seen.
        "train": dict.fromkeys((part for part, rate in metrics.last["lr"].items() if rate), 1.0),
        "steps": metrics.last["step"],
        "samples": metrics.last["samples"],
        "tokens": metrics.last["tokens"],
        "seconds": sum(line["seconds"] for line in lines),
    }
    return StageData(
        name=facts["name"],
        index=index,
        finished=listed is not None,
        train={part: share for part, share in facts["train"].items() if share},
        start=facts.get("start", {}),
        parts=facts.get("parts", {}),
        steps=facts["steps"],
        samples=facts["samples"],
        tokens=facts["tokens"],
        seconds=facts["seconds"],
        metrics=metrics,
        proofs=proofs,
    )


def _metrics(lines: list[dict[str, Any]]) -> Metrics:
    """Columns of the lines."""
    objectives = dict.fromkeys(chain.from_iterable(line["loss"] for line in lines))
    waits = [line["wait"] / max(line["seconds"], 1e-9) for line in lines]
    return Metrics(
        step=_column([line["step"] for line in lines]),
        loss={name: _column([line["loss"].get(name) for line in lines]) for name in objectives},
        measures={name: _column([line.get(name) for line in lines]) for name in MEASURES}
        | {"wait": _column(waits)},
        last=lines[-1] if lines else {},
    )


def _column(values: list[float | None]) -> Series:
    """float64[N], with NaN for null."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _read_monitoring(run: RunFolder) -> list[dict[str, Any]]:
    """The run's monitoring points; earlier versions called their file watch.jsonl."""
    found = run.monitoring
    lines = read_lines(found if found.exists() else found.with_name("watch.jsonl"))
    # They also called what was measured on `watched`.
    return [
        {"monitored" if key == "watched" else key: value for key, value in line.items()}
        for line in lines
    ]


def _read_optional(path: Path) -> dict[str, Any] | None:
    """The JSON value in `path`, or None when nobody made the file."""
    if not path.exists():
        return None
    value = read_json(path)
    if "models" not in value:
        raise RunError(
            f"{path} has keys {', '.join(value) or 'none'}; expected `models`; make the file anew"
        )
    return dict(value)


@contextmanager
def _expecting(folder: Path) -> Iterator[None]:
    """Names the folder when one of its files lacks a key."""
    try:
        yield
    except KeyError as error:
        raise RunError(
            f"the files of {folder} lack the key {error}; they come from another version of sailvit or were edited:"
            " report with that version, or start the run anew"
        ) from error
