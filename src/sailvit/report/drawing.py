"""How charts look, and how a figure becomes a small inline SVG that follows the page's light or
dark colours.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#1c2530"
FAINT = "#5b6675"
GRID = "#e3e7ec"
PAPER = "#fefefe"
BASE = "#b45309"
REFINED = "#1d5fd1"
THIRD = "#0f766e"
FOURTH = "#9333a8"

COLOURS = {
    INK: "ink",
    FAINT: "faint",
    GRID: "grid",
    PAPER: "paper",
    BASE: "base",
    REFINED: "refined",
    THIRD: "third",
    FOURTH: "fourth",
}
"""Colours of the light page with the CSS variable that replaces each in the SVG; report.css
defines both schemes."""

WIDTH, HEIGHT = 360, 240
"""Natural size of a chart, in CSS pixels: a phone shows it nearly 1:1, so its text stays
readable."""

STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.labelcolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 11.5,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.fontsize": 11.5,
    "legend.frameon": False,
    "legend.labelcolor": FAINT,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": FAINT,
    "xtick.major.size": 3,
    "ytick.color": FAINT,
    "ytick.major.size": 0,
}
"""Text stays text (`svg.fonttype`), in the page's font; names of stages and tasks are never
parsed as formulas."""


@dataclass(frozen=True)
class Chart:
    """A drawn chart."""

    svg: Markup
    """The inline `<svg>` element, labelled for screen readers."""
    caption: str = ""
    """A sentence under the chart, or nothing."""


@contextmanager
def canvas(width: int = WIDTH, height: int = HEIGHT) -> Iterator[tuple[Figure, Axes]]:
    """A figure of `width` x `height` CSS pixels with one pair of axes, in the house style."""
    with mpl.rc_context(STYLE):
        # 72 points per inch: one point of the figure is one CSS pixel. Without pyplot, which
        # keeps global figures.
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        yield figure, figure.add_subplot()


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Title, horizontal axis label, and the vertical one lying above its axis, where it reads
    without tilting.
    """
    axes.set_title(title, pad=22 if y else 8)
    axes.set_xlabel(x)
    if y:
        axes.annotate(
            y,
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 6),
            textcoords="offset points",
            color=FAINT,
        )


def to_svg(figure: Figure, name: str, alt: str) -> Markup:
    """The figure as an inline element: no prologue, no metadata, ids that no other chart
    shares, colours from CSS.
    """
    buffer = io.StringIO()
    # A date in the file would make every page differ.
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # The salt makes ids of clip paths the same each time, so pages of one run are equal.
    with mpl.rc_context({"svg.hashsalt": name, **STYLE}):
        figure.savefig(buffer, format="svg", metadata=no_metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->\s*|<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    # Matplotlib numbers its groups per file; two charts on a page would share ids.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub("|".join(COLOURS), lambda match: f"var(--{COLOURS[match[0]]})", svg)
    # Matplotlib's own size attributes are in points; the page sizes charts through CSS and the
    # view box.
    svg = re.sub(
        r'(<svg[^>]*?) width="[^"]*pt"| height="[^"]*pt"',
        lambda match: match[1] or "",
        svg,
        count=2,
    )
    svg = svg.replace("<svg", f'<svg role="img" aria-label={quoteattr(alt)}', 1)
    return Markup(re.sub(r"\n\s*", "\n", svg))
