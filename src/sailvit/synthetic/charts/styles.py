"""The style of a chart: size, font, grid and frame, chosen at random and independent of the
content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

DPI = 100
"""Pixels per inch of every chart: a point of font size is 1.39 pixels."""
_FONTS = ("DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono", "STIXGeneral")
_PAPERS = (
    ("#ffffff", "#ffffff"),
    ("#ffffff", "#eef1f6"),
    ("#f7f5ef", "#f7f5ef"),
    ("#fafafa", "#ffffff"),
)
_RAMPS = ("viridis", "Blues", "YlOrRd", "Greens", "cividis", "magma")
_GLYPH = 0.62
"""Mean width of a character, in units of the font's size."""


@dataclass(frozen=True)
class Style:
    """Everything about a drawing that is not its content."""

    width: int
    """Width of the image, in pixels."""
    height: int
    """Height of the image, in pixels."""
    font: str
    """Font family, one of those that come with matplotlib."""
    type: float
    """Font size of all text but the title, in points."""
    papers: tuple[str, str]
    """Colours around and inside the axes."""
    grid: str
    """Style of grid lines."""
    frame: bool
    """Whether the axes have a line on all four sides."""
    edges: bool
    """Whether bars have outlines."""
    thickness: float
    """Width of bars, as a share of the distance between them."""
    marker: str
    """Marker of points; empty for lines without markers."""
    legend_right: bool
    """Whether the legend is on the right, which only wide charts have; false: below."""
    ramp: str
    """Colour map of heat maps."""
    hole: float
    """Radius of the hole in a pie, as a share of the pie's; 0: no hole."""

    def text_width(self, text: str) -> float:
        """Approximate width of `text` at the font size `type`, in pixels."""
        return len(text) * self.type * DPI / 72 * _GLYPH

    @property
    def settings(self) -> dict[str, Any]:
        """The style as settings of matplotlib."""
        return {
            "font.family": self.font,
            "font.size": self.type,
            "axes.titlesize": self.type + 2,
            "axes.facecolor": self.papers[1],
            "axes.spines.top": self.frame,
            "axes.spines.right": self.frame,
            "axes.axisbelow": True,
            "axes.unicode_minus": False,
            "grid.linestyle": self.grid,
            "grid.color": "#a3a9b4",
            "grid.linewidth": 0.7,
            "patch.linewidth": 0.8,
            # A dollar sign in a text would begin a formula.
            "text.parse_math": False,
        }


def some_style(
    rng: np.random.Generator, widths: tuple[int, int], heights: tuple[int, int]
) -> Style:
    """A random style within these sizes."""
    width, height = (
        int(rng.integers(widths[0], widths[1] + 1)),
        int(rng.integers(heights[0], heights[1] + 1)),
    )
    # Towers see images scaled to a few hundred pixels per side: text of larger ones must be
    # larger to stay readable.
    smallest = max(8.0, min(width, height) / 60)
    return Style(
        width=width,
        height=height,
        font=_FONTS[rng.integers(len(_FONTS))],
        type=round(float(rng.uniform(smallest, 1.2 * smallest)), 1),
        papers=_PAPERS[rng.integers(len(_PAPERS))],
        grid=("-", "--", ":")[rng.integers(3)],
        frame=bool(rng.random() < 0.5),
        edges=bool(rng.random() < 0.4),
        thickness=round(float(rng.uniform(0.55, 0.85)), 2),
        marker=("o", "s", "^", "D", "")[rng.integers(5)],
        legend_right=bool(rng.random() < 0.5) and width >= 560,
        ramp=_RAMPS[rng.integers(len(_RAMPS))],
        hole=0.45 if rng.random() < 0.3 else 0.0,
    )
