"""Monitoring points as charts over the run's steps: drift, perplexity, affinity, norms by part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from sailvit.core import formatting
from sailvit.report.charts import MODEL_STYLES, band
from sailvit.report.curves import Series, finite
from sailvit.report.drawing import Chart, canvas, label, to_svg

_FEW = 1e3
"""From this range on, a logarithmic axis has room for powers of ten only."""

Extent = tuple[str, int, int]
"""A stage's name, and the steps of the run at which it begins and ends."""


@dataclass(frozen=True)
class Panel:
    """What one chart shows."""

    title: str
    """What it shows."""
    unit: str
    """What is counted."""
    values: Callable[[Mapping[str, Any]], Mapping[str, float | None]]
    """The numbers of a line by the names of their curves."""
    log: bool = False
    """Whether magnitudes matter more than differences."""


PANELS = (
    Panel("Tower and its base", "linear CKA; 1 is unchanged", lambda line: {"tower": line["cka"]}),
    Panel(
        "The language on texts alone",
        "perplexity of held texts",
        lambda line: {"language": line["perplexity"]},
    ),
    Panel("Images and words", "distance in the plane", lambda line: line["affinity"] or {}),
    Panel("Updates", "change per step / weight", lambda line: line.get("update", {}), log=True),
    Panel("Gradients", "norm before clipping", lambda line: line.get("gradient", {}), log=True),
)
"""In the order of the page."""


def monitoring_charts(points: Sequence[Mapping[str, Any]], stages: Sequence[Extent]) -> list[Chart]:
    """A chart for everything that was measured at two points or more."""
    begins = {index: begin for index, (_, begin, _) in enumerate(stages)}
    placed = [line for line in points if line["stage_index"] in begins]
    step = np.array(
        [begins[line["stage_index"]] + line["step"] for line in placed], dtype=np.float64
    )
    drawn = []
    for panel in PANELS:
        if curves := _curves(panel, placed, step):
            drawn.append(_chart(panel, curves, stages))
    return drawn


def _curves(
    panel: Panel, lines: Sequence[Mapping[str, Any]], step: Series
) -> dict[str, tuple[Series, Series]]:
    found = [panel.values(line) for line in lines]
    names = dict.fromkeys(name for values in found for name in values)
    curves = {name: finite(step, _column([values.get(name) for values in found])) for name in names}
    return {name: curve for name, curve in curves.items() if len(curve[0]) > 1}


def _chart(
    panel: Panel, curves: Mapping[str, tuple[Series, Series]], stages: Sequence[Extent]
) -> Chart:
    total = max((end for _, _, end in stages), default=1)
    with canvas() as (figure, axes):
        for (name, (x, y)), (colour, marker, _) in zip(
            curves.items(), MODEL_STYLES[::-1], strict=False
        ):
            axes.plot(x, y, color=colour, marker=marker, markersize=3, linewidth=1.6, label=name)
        if panel.log:
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            axes.yaxis.set_major_locator(
                LogLocator(subs=(1, 2, 5) if high / low < _FEW else (1,), numticks=8)
            )
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        else:
            # An offset above the axis would stand on the title's unit.
            axes.ticklabel_format(axis="y", useOffset=False)
        # Room above the curves for the names of the stages.
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * (high / low) ** 0.2 if panel.log else high + 0.2 * (high - low))
        for number, (name, begin, end) in enumerate(stages):
            band(axes, number, name, (begin, end, total))
        axes.set_xlim(0, max(total, 1))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: formatting.count(value))
        label(axes, panel.title, "optimizer step of the run", panel.unit)
        if len(curves) > 1:
            figure.legend(
                loc="outside lower left",
                ncols=4,
                borderpad=0.2,
                handlelength=1.4,
                columnspacing=1.2,
            )
        courses = "; ".join(
            f"{name} from {y[0]:.3g} to {y[-1]:.3g}" for name, (_, y) in curves.items()
        )
        return Chart(
            to_svg(figure, f"monitoring-{panel.title}", f"{panel.title}, {panel.unit}: {courses}.")
        )


def _column(values: Sequence[float | None]) -> Series:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
