"""Draws charts with matplotlib when their pixels are needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sailvit.synthetic.charts import marks
from sailvit.synthetic.charts.axes import head, legend
from sailvit.synthetic.charts.clouds import Cloud
from sailvit.synthetic.charts.styles import DPI, Style
from sailvit.synthetic.charts.tables import WITH_LEGEND, Table

_MARKS: dict[str, Callable[[Axes, Any, Style], None]] = {
    "bar": marks.draw_bars,
    "horizontal": marks.draw_bars,
    "grouped": marks.draw_bars,
    "stacked": marks.draw_stack,
    "histogram": marks.draw_histogram,
    "line": marks.draw_lines,
    "area": marks.draw_areas,
    "pie": marks.draw_pie,
    "heatmap": marks.draw_heat,
    "box": marks.draw_boxes,
    "scatter": marks.draw_points,
}
# matplotlib has one set of settings per process, so threads must draw one after another.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class ChartDrawing:
    """A chart that is drawn when its pixels are needed; every drawing by one version of
    matplotlib has the same pixels.
    """

    chart: Table | Cloud
    """Its content."""
    style: Style
    """How it looks."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""
        return self.style.width, self.style.height

    def pixels(self) -> np.ndarray:
        """uint8[H, W, 3]."""
        with _ONE_AT_A_TIME, mpl.rc_context():
            # The user's own settings must not change the pixels.
            mpl.rcdefaults()
            canvas = FigureCanvasAgg(self.figure())
            canvas.draw()
            return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    def figure(self) -> Figure:
        """The figure, not rendered yet. It changes matplotlib's settings: call it inside
        `rc_context`.
        """
        # Not from pyplot, which would keep every figure alive (docs/decisions/005).
        mpl.rcParams.update(self.style.settings)
        inches = (self.style.width / DPI, self.style.height / DPI)
        figure = Figure(
            figsize=inches, dpi=DPI, facecolor=self.style.papers[0], layout="constrained"
        )
        axes = figure.add_subplot()
        kind = self.chart.kind if isinstance(self.chart, Table) else "scatter"
        _MARKS[kind](axes, self.chart, self.style)
        head(figure, axes, self.chart.title, self.style)
        if (title := self._legend()) is not None:
            legend(figure, axes, self.style, title)
        return figure

    def _legend(self) -> str | None:
        """Title of the legend; None: the chart needs no legend."""
        if isinstance(self.chart, Cloud):
            return self.chart.noun.capitalize() if len(self.chart.groups) > 1 else None
        if self.chart.kind == "pie":
            beside = marks.pie_radius(self.chart, self.style) is not None
            return None if beside else self.chart.across.noun.capitalize()
        return (
            self.chart.group.noun.capitalize()
            if self.chart.group and self.chart.kind in WITH_LEGEND
            else None
        )
