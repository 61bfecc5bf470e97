"""What is drawn around the marks: ticks, grid, axis labels, title and legend."""

from __future__ import annotations

from textwrap import fill
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sailvit.synthetic.charts.styles import DPI, Style
from sailvit.synthetic.charts.tables import Table

_HEADROOM = {True: 1.12, False: 1.03}
"""End of the value axis, in units of its last tick: with printed numbers (True) and without."""


def value_axis(axes: Axes, table: Table, style: Style, axis: Literal["x", "y"]) -> None:
    """Draw ticks and grid lines at whole steps, from 0."""
    ticks = list(range(0, table.top + 1, table.step))
    texts = [table.text(tick) for tick in ticks]
    end = table.top * _HEADROOM[table.printed]
    if axis == "x":
        crowded = sum(map(style.text_width, texts)) > 0.6 * style.width
        axes.set_xticks(ticks, texts, rotation=45 if crowded else 0)
        axes.set_xlim(0, end)
    else:
        axes.set_yticks(ticks, texts)
        axes.set_ylim(0, end)
    axes.grid(visible=not table.printed or style.frame, axis=axis)


def label_axis(
    axes: Axes, table: Table, style: Style, axis: Literal["x", "y"], *, every_grid: bool = False
) -> None:
    """Draw one tick per label, tilted where labels would touch each other."""
    places = range(len(table.labels))
    if axis == "y":
        axes.set_yticks(places, table.labels)
        # matplotlib counts upwards, and a list of labels is read from the top.
        axes.invert_yaxis()
        return
    widest = max(map(style.text_width, table.labels)) + style.type
    slot = 0.7 * style.width / len(places)
    if widest <= slot:
        axes.set_xticks(places, table.labels)
    else:
        tilt = 35 if widest < 3 * slot else 90
        axes.set_xticks(
            places,
            table.labels,
            rotation=tilt,
            ha="right" if tilt < 90 else "center",
            rotation_mode=None,
        )
    if every_grid:
        axes.grid(visible=True, axis="x")


def name_axes(axes: Axes, table: Table, *, flat: bool = False) -> None:
    """Label both axes, the value axis with its unit; `flat`: the value axis is horizontal."""
    name = table.across.noun.capitalize()
    axes.set_xlabel(table.axis if flat else name)
    axes.set_ylabel(name if flat else table.axis)


def head(figure: Figure, axes: Axes, title: str, style: Style) -> None:
    """Draw the title, in as many lines as it needs."""
    letter = (style.type + 2) * DPI / 72 * 0.62
    width = (0.5 if style.legend_right else 0.8) * style.width
    text = fill(title, max(12, int(width / letter)))
    # The constrained layout leaves no space above axes of a fixed shape, so that a title of the
    # axes could leave the image: there it belongs to the figure.
    if axes.get_aspect() == 1:
        figure.suptitle(text, fontsize=style.type + 2)
    else:
        axes.set_title(text)


def legend(figure: Figure, axes: Axes, style: Style, title: str) -> None:
    """Draw the legend outside of the axes, where it covers nothing."""
    handles, names = axes.get_legend_handles_labels()
    if style.legend_right:
        figure.legend(handles, names, loc="outside right upper", title=title)
        return
    # A swatch, its gap and the space between columns take five times the font's size.
    widest = max(map(style.text_width, names)) + 5 * style.type * DPI / 72
    columns = max(1, min(len(names), int(0.9 * style.width / widest)))
    figure.legend(handles, names, loc="outside lower center", ncols=columns, title=title)
