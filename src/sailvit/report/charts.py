"""The report's charts, each from plain arrays to an inline SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sailvit.core import formatting
from sailvit.report.curves import Series, envelope, finite, smoothed, spread_indices, thinned
from sailvit.report.drawing import (
    BASE,
    FAINT,
    FOURTH,
    GRID,
    INK,
    PAPER,
    REFINED,
    THIRD,
    WIDTH,
    Chart,
    canvas,
    label,
    to_svg,
)

UNITS = {"next_token": "nats per answer token", "contrastive": "nats per image"}
"""What a loss counts, by objective; others are labelled `loss`."""

MODEL_STYLES = (
    (BASE, "o", PAPER),
    (REFINED, "o", REFINED),
    (THIRD, "D", THIRD),
    (FOURTH, "s", FOURTH),
)
"""Colour, marker and fill per model, in order: the first is hollow, so colour is never the only
difference."""

SCATTERED = 400
"""Most points drawn per set; each costs some 100 bytes of the page."""


def loss_chart(stage: str, objective: str, step: Series, loss: Series) -> Chart:
    """One objective over one stage: every step faint, the moving average on top."""
    x, y = finite(step, loss)
    unit = UNITS.get(objective, "loss")
    average = smoothed(y)
    with canvas() as (figure, axes):
        axes.plot(*envelope(x, y), color=REFINED, alpha=0.3, linewidth=0.8, label="each step")
        axes.plot(*thinned(x, average), color=REFINED, linewidth=2, label="smoothed")
        axes.set_ylim(*_loss_limits(y, average))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: formatting.count(value))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        label(axes, stage, "optimizer step of the stage", unit)
        axes.legend(loc="upper right", borderpad=0)
        course = (
            f"from {average[0]:.3g} to {average[-1]:.3g}" if len(y) else "without a finite value"
        )
        steps = formatting.counted(len(step), "step")
        alt = f"Loss of {objective} in stage {stage}, in {unit}: {course} over {steps}, smoothed."
        svg = to_svg(figure, f"loss-{stage}-{objective}", alt)
    lost = len(step) - len(x)
    return Chart(svg, f"{lost} of {len(step)} steps had no finite loss." if lost else "")


def _loss_limits(y: Series, average: Series) -> tuple[float, float]:
    """Vertical range of the average and of all values but the highest half per cent, so that a
    spike does not flatten the curve.
    """
    if not len(y):
        return 0.0, 1.0
    low, high = float(y.min()), max(float(np.quantile(y, 0.995)), float(average.max()))
    # A constant loss would give an axis without extent.
    room = 0.06 * (high - low) or 0.1
    return low - room, high + room


def run_chart(
    title: str, unit: str, stages: Sequence[tuple[str, Series]], *, share: bool = False
) -> Chart:
    """One measure over all steps of the run, with a band per stage; `share` draws it in percent."""
    with canvas() as (figure, axes):
        start, tops = 0, []
        total = sum(len(values) for _, values in stages)
        for number, (name, values) in enumerate(stages):
            x, y = finite(np.arange(start + 1, start + len(values) + 1, dtype=np.float64), values)
            axes.plot(*envelope(x, y), color=REFINED, alpha=0.3, linewidth=0.8)
            axes.plot(*thinned(x, smoothed(y)), color=REFINED, linewidth=2)
            tops.append(float(np.quantile(y, 0.995)) if len(y) else 0.0)
            band(axes, number, name, (start, start + len(values), total))
            start += len(values)
        # Above the curve a fifth of the height stays free for the names of the stages.
        axes.set_ylim(0, (max(tops, default=0.0) or (0.01 if share else 1.0)) * 1.22)
        axes.set_xlim(0, max(total, 1))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: formatting.count(value))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
        if share:
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        label(axes, title, "optimizer step of the run", unit)
        medians = "; ".join(f"{name} {_median(values, percent=share)}" for name, values in stages)
        return Chart(
            to_svg(
                figure,
                f"run-{title}",
                f"{title} over the run, {unit}. Median per stage: {medians}.",
            )
        )


def band(axes: Axes, number: int, name: str, extent: tuple[int, int, int]) -> None:
    """Mark a stage on the horizontal axis, with its name if that fits."""
    start, stop, total = extent
    if number % 2:
        axes.axvspan(start, stop, color=GRID, alpha=0.45, linewidth=0)
    # 7 px per letter at 11.5 px; an axis is about 300 px long.
    if 7 * len(name) < 300 * (stop - start) / max(total, 1):
        middle = (start + stop) / 2
        axes.text(
            middle,
            0.985,
            name,
            transform=axes.get_xaxis_transform(),
            color=FAINT,
            ha="center",
            va="top",
        )


def _median(values: Series, *, percent: bool) -> str:
    """Median of the finite values as text."""
    kept = values[np.isfinite(values)]
    middle = float(np.median(kept)) if len(kept) else float("nan")
    return formatting.percent(middle) if percent else formatting.rate(middle)


def task_chart(models: Mapping[str, Mapping[str, Any]]) -> Chart:
    """Score per task: a row per task, a marker per model, the change from first to last model
    at the end of the row.
    """
    names = list(models)
    tasks = list(dict.fromkeys(task for model in models.values() for task in model["tasks"]))
    rows = [*((task, [models[name]["tasks"].get(task) for name in names]) for task in tasks)]
    rows.append(("mean", [models[name]["mean"] for name in names]))
    # 27 px per row keep task names apart; 92 px are title, axis and legend.
    with canvas(WIDTH, 92 + 27 * len(rows)) as (figure, axes):
        for height, (_, values) in zip(range(len(rows) - 1, -1, -1), rows, strict=True):
            _task_row(axes, height, values)
        legend_marks(axes, [model.get("label", name) for name, model in models.items()])
        # Above the lowest row, the mean, which is no task.
        axes.axhline(0.5, color=GRID, linewidth=1.2)
        axes.set_yticks(range(len(rows)), [task for task, _ in reversed(rows)], color=INK)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.grid(visible=False, axis="y")
        label(axes, "Exact match per task", "held-out questions answered right", "")
        figure.legend(
            loc="outside lower left", ncols=min(len(names), 2), handletextpad=0.2, borderpad=0.4
        )
        alt = "; ".join(f"{task}: " + ", ".join(_scored(names, values)) for task, values in rows)
        return Chart(to_svg(figure, "tasks", f"Exact match per task and model. {alt}."))


def _scored(names: Sequence[str], values: Sequence[float | None]) -> list[str]:
    """`model score` for every model that has one."""
    return [
        f"{name} {formatting.score(value)}"
        for name, value in zip(names, values, strict=True)
        if value is not None
    ]


def mark_row(axes: Axes, height: int, values: Sequence[float | None]) -> int:
    """Draw the markers of one row, a model each, joined from lowest to highest; returns how many
    there are.
    """
    known = [value for value in values if value is not None]
    axes.plot([min(known), max(known)], [height, height], color=FAINT, linewidth=1.6, zorder=1)
    for value, (colour, marker, fill) in zip(values, cycle(MODEL_STYLES), strict=False):
        if value is not None:
            axes.plot(
                value,
                height,
                marker,
                color=colour,
                markerfacecolor=fill,
                markeredgewidth=1.8,
                ms=7.5,
                zorder=2,
            )
    return len(known)


def legend_marks(axes: Axes, names: Iterable[str]) -> None:
    """Add a marker and a name per model for the legend, which rows do not give."""
    for name, (colour, marker, fill) in zip(names, cycle(MODEL_STYLES), strict=False):
        axes.plot([], [], marker, color=colour, markerfacecolor=fill, label=name, ms=7)


def _task_row(axes: Axes, height: int, values: Sequence[float | None]) -> None:
    """Markers of one task, and the change in points."""
    known = mark_row(axes, height, values)
    if known > 1 and values[0] is not None and values[-1] is not None:
        change = f"{100 * (values[-1] - values[0]):+.0f}".replace("-", "\N{MINUS SIGN}")
        axes.annotate(
            change,
            (1, height),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=INK,
        )


def feature_charts(
    models: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str]
) -> list[Chart]:
    """A scatter per model of visual and text features in their PCA plane, all with the same
    limits.
    """
    sets = {
        name: [_points(model[kind]) for kind in ("visual", "text")]
        for name, model in models.items()
    }
    everything = np.concatenate([points for pair in sets.values() for points in pair])
    low, high = everything.min(axis=0), everything.max(axis=0)
    # 4 % of margin on each side, and squares, so that distances read the same both ways.
    half = 0.54 * float((high - low).max() or 1.0)
    (left, right), (bottom, top) = ((c - half, c + half) for c in (low + high) / 2)
    charts = []
    for name, (visual, text) in sets.items():
        with canvas(WIDTH, WIDTH - 10) as (figure, axes):
            axes.plot(
                *text.T,
                "^",
                color=FAINT,
                ms=3.6,
                alpha=0.55,
                markeredgewidth=0,
                label="text embeddings",
            )
            axes.plot(
                *visual.T,
                "o",
                color=REFINED,
                ms=3.8,
                alpha=0.6,
                markeredgewidth=0,
                label="visual features",
            )
            axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.yaxis.set_major_locator(MaxNLocator(5))
            label(axes, labels.get(name, name), *_axis_names(models[name].get("explained")))
            figure.legend(
                loc="outside lower left", ncols=2, markerscale=2, handletextpad=0.2, borderpad=0.4
            )
            alt = f"{labels.get(name, name)}: {len(visual)} visual features and {len(text)} text embeddings, joint PCA."
            charts.append(Chart(to_svg(figure, f"features-{name}", alt)))
    return charts


def _points(stored: Sequence[Sequence[float]]) -> Series:
    """float64[N, 2], evenly thinned."""
    points: Series = np.array(stored, dtype=np.float64).reshape(-1, 2)
    return points[spread_indices(len(points), SCATTERED)]


def _axis_names(explained: Sequence[float] | None) -> tuple[str, str]:
    """Names of the two components, with their shares of the variance where stored."""
    if not explained:
        return "first component", "second component"
    first, second = (formatting.percent(share) for share in explained)
    return f"first component ({first} of variance)", f"second component ({second})"
