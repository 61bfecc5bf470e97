"""Charts of the page about an evaluation: sets, probes by layer, clouds, drift by block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from sailvit.core import formatting
from sailvit.report.charts import MODEL_STYLES, SCATTERED, legend_marks, mark_row
from sailvit.report.curves import Series, spread_indices
from sailvit.report.drawing import (
    GRID,
    INK,
    REFINED,
    WIDTH,
    Chart,
    canvas,
    label,
    to_svg,
)


def set_chart(
    models: Mapping[str, Mapping[str, Any]], sets: Sequence[str]
) -> tuple[Chart | None, list[str]]:
    """Scores by set: a row per set, a marker per model; and the sets that it leaves out, as their
    scores are not out of 100.
    """
    rows, beyond = _scored(models, sets)
    if not rows:
        return None, beyond
    with canvas(WIDTH, 92 + 24 * len(rows) + 14 * len(models)) as (figure, axes):
        for height, values in zip(range(len(rows) - 1, -1, -1), rows.values(), strict=True):
            mark_row(axes, height, values)
        legend_marks(axes, models)
        axes.set_yticks(range(len(rows)), list(reversed(rows)), color=INK)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlim(-3, 103)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(visible=False, axis="y")
        label(axes, "Scores by set", "score, 0 to 100", "")
        figure.legend(loc="outside lower left", ncols=1, handletextpad=0.2, borderpad=0.4)
        told = "; ".join(f"{name}: {_listed(models, values)}" for name, values in rows.items())
        return Chart(to_svg(figure, "sets", f"Scores by set and model. {told}.")), beyond


def _scored(
    models: Mapping[str, Mapping[str, Any]], sets: Sequence[str]
) -> tuple[dict[str, list[float | None]], list[str]]:
    """Scores of each set that has any, and the names of sets whose scores go beyond 100."""
    rows: dict[str, list[float | None]] = {}
    beyond = []
    for name in sets:
        values = [model["sets"].get(name, {}).get("score") for model in models.values()]
        known = [value for value in values if value is not None]
        if known and max(known) > 100:
            beyond.append(name)
        elif known:
            rows[name] = values
    return rows, beyond


def _listed(models: Iterable[str], values: Sequence[float | None]) -> str:
    pairs = zip(models, values, strict=True)
    return ", ".join(f"{name} {value:.1f}" for name, value in pairs if value is not None)


def probe_charts(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """A chart per probe, set and metric that was measured at two layers or more: the layers
    across, a line per tower.
    """
    groups: dict[tuple[str, str, str], dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        if row["layer"] >= 0:
            key = (row["probe"], row["set"], row["metric"])
            groups.setdefault(key, {}).setdefault(row["tower"], []).append(row)
    return [
        _curve_chart(
            f"{probe}, {name}",
            f"{metric}, %",
            "layer",
            {
                tower: [(r["layer"], r["value"], r["low"], r["high"]) for r in entries]
                for tower, entries in towers.items()
            },
        )
        for (probe, name, metric), towers in groups.items()
        if any(len({r["layer"] for r in entries}) > 1 for entries in towers.values())
    ]


def drift_charts(entries: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Likeness to the base and change from it, block by block, a line per tower."""
    charts = []
    for measure, title, unit in (
        ("cka", "Likeness to the base", "linear CKA; 1: the same"),
        ("change", "Change of features", "share of their length"),
    ):
        lines = {
            each["tower"]: [
                (b["block"], b[measure]["value"], b[measure]["low"], b[measure]["high"])
                for b in each["blocks"]
            ]
            for each in entries
        }
        if lines:
            charts.append(_curve_chart(title, unit, "block", lines))
    return charts


def layer_chart(entries: Sequence[Mapping[str, Any]]) -> Chart | None:
    """How far pictures and texts lie apart in each layer of the language, a line per model."""
    lines = {
        each["tower"]: [
            (layer, value, None, None)
            for layer, value in enumerate(each["integration"]["layers"], start=1)
        ]
        for each in entries
        if each["integration"]
    }
    if not lines:
        return None
    return _curve_chart("Pictures and texts in the language", "Fréchet distance", "layer", lines)


Marks = Sequence[tuple[float, float, float | None, float | None]]
"""Place, value, and the ends of its interval."""


def _curve_chart(title: str, unit: str, across: str, lines: Mapping[str, Marks]) -> Chart:
    with canvas() as (figure, axes):
        for (name, marks), (colour, marker, fill) in zip(
            lines.items(), cycle(MODEL_STYLES), strict=False
        ):
            table = np.array(sorted(marks, key=lambda mark: mark[0]), dtype=np.float64)
            x, y, low, high = table.T
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(x, y, marker=marker, color=colour, markerfacecolor=fill, ms=5, label=name)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        label(axes, title, across, unit)
        figure.legend(loc="outside lower left", ncols=2, borderpad=0.3, handlelength=1.6)
        told = "; ".join(
            f"{name} from {marks[0][1]:.3g} to {marks[-1][1]:.3g}" for name, marks in lines.items()
        )
        return Chart(to_svg(figure, f"curve-{title}-{unit}", f"{title}, {unit}: {told}."))


def cloud_charts(entries: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Chart]]]:
    """A group of scatters per language, one per tower: patches and words, each in the plane of
    its own PCA, as in the paper's Figure 6. All of a language have the same limits.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for each in entries:
        groups.setdefault(each["language"], []).append(each)
    return [(name, _clouds(group)) for name, group in groups.items()]


def _clouds(group: Sequence[Mapping[str, Any]]) -> list[Chart]:
    sides = [[_points(each[kind]) for kind in ("visual", "text")] for each in group]
    everything = np.concatenate([points for pair in sides for points in pair])
    # The centre of each side is 0; the farthest two per cent may lie outside.
    half = 1.05 * max(float(np.quantile(np.abs(everything), 0.99)), 1e-9)
    charts = []
    for each, (visual, text) in zip(group, sides, strict=True):
        with canvas(WIDTH, WIDTH + 30) as (figure, axes):
            for points, marker, colour, kind in (
                (visual, "o", REFINED, "image patches"),
                (text, "^", INK, "words"),
            ):
                across, up = points.T
                axes.plot(across, up, marker, color=colour, label=kind, alpha=0.5, mew=0, ms=3.6)
            axes.axhline(0, color=GRID, linewidth=0.8, zorder=0)
            axes.axvline(0, color=GRID, linewidth=0.8, zorder=0)
            axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.yaxis.set_major_locator(MaxNLocator(5))
            label(axes, each["tower"], *(_axis(each, number) for number in (0, 1)))
            figure.legend(loc="outside lower left", ncols=2, markerscale=2, handletextpad=0.2)
            found = each["distances"]
            told = ", ".join(f"{name} {found[name]['value']:.3g}" for name in found)
            alt = f"{each['tower']} and {each['language']}, patches and words. Distances: {told}."
            name = f"cloud-{each['tower']}-{each['language']}"
            charts.append(Chart(to_svg(figure, name, alt), f"Distances: {told}."))
    return charts


def _axis(each: Mapping[str, Any], number: int) -> str:
    shares = [formatting.percent(each["explained"][side][number], 0) for side in ("visual", "text")]
    return f"component {number + 1} ({shares[0]} of patches, {shares[1]} of words)"


def _points(stored: Sequence[Sequence[float]]) -> Series:
    """float64[N, 2], evenly thinned."""
    points: Series = np.array(stored, dtype=np.float64).reshape(-1, 2)
    return points[spread_indices(len(points), SCATTERED)]
