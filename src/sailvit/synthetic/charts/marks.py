"""Draws the marks of every kind of chart into matplotlib's axes: bars, lines, slices, cells,
boxes and points.

Values are drawn as integers, in units of the last decimal; only labels have a decimal point.
"""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from sailvit.synthetic.charts.axes import label_axis, name_axes, value_axis
from sailvit.synthetic.charts.clouds import Cloud
from sailvit.synthetic.charts.styles import Style
from sailvit.synthetic.charts.tables import QUARTILES, Table

_INK, _PAPER = "#20242b", "#ffffff"
_MARKERS = "os^D"


def draw_bars(axes: Axes, table: Table, style: Style) -> None:
    """Draw bars side by side, vertical or horizontal."""
    flat = table.kind == "horizontal"
    slot = style.thickness / len(table.series)
    places = np.arange(len(table.labels)) - (len(table.series) - 1) / 2 * slot
    draw = axes.barh if flat else axes.bar
    # Before the numbers, which extend the axis that this sets.
    value_axis(axes, table, style, "x" if flat else "y")
    for index, (name, values) in enumerate(zip(table.series, table.values, strict=True)):
        bars = draw(
            places + index * slot,
            values,
            slot,
            color=table.colours.codes[index],
            label=name,
            **_edge(style),
        )
        if table.printed:
            _print_values(axes, bars, table, values, style=style, slot=slot)
    label_axis(axes, table, style, "y" if flat else "x")
    name_axes(axes, table, flat=flat)


def _print_values(
    axes: Axes, bars: Any, table: Table, values: tuple[int, ...], *, style: Style, slot: float
) -> None:
    """Write numbers at the ends of bars, and extend the axis so that they fit; the text is
    vertical where bars are narrow.
    """
    longest = max(style.text_width(table.text(value)) for row in table.values for value in row)
    flat = table.kind == "horizontal"
    upright = not flat and longest > slot / len(values) * style.width * 0.75
    axes.bar_label(
        bars, [table.text(value) for value in values], padding=2, rotation=90 if upright else 0
    )
    if flat:
        axes.set_xlim(0, table.top * (1 + 2 * longest / style.width))
    elif upright:
        axes.set_ylim(0, table.top * (1 + 2.5 * longest / style.height))


def draw_stack(axes: Axes, table: Table, style: Style) -> None:
    """Draw bars on top of each other."""
    base = np.zeros(len(table.labels))
    for name, values, colour in zip(table.series, table.values, table.colours.codes, strict=True):
        bars = axes.bar(
            range(len(values)),
            values,
            style.thickness,
            bottom=base,
            color=colour,
            label=name,
            **_edge(style),
        )
        if table.printed:
            texts = [table.text(value) for value in values]
            axes.bar_label(bars, texts, label_type="center", color=contrast(colour))
        base = base + values
    value_axis(axes, table, style, "y")
    label_axis(axes, table, style, "x")
    name_axes(axes, table)


def draw_histogram(axes: Axes, table: Table, style: Style) -> None:
    """Draw bars without gaps, with ticks at the edges of the bins."""
    (values,) = table.values
    bars = axes.bar(
        range(len(values)), values, 1.0, align="edge", color=table.colours.codes[0], edgecolor=_INK
    )
    if table.printed:
        axes.bar_label(bars, [table.text(value) for value in values], padding=2)
    value_axis(axes, table, style, "y")
    ends = [label.split("-")[0] for label in table.labels] + [table.labels[-1].split("-")[1]]
    axes.set_xticks(range(len(ends)), ends)
    axes.set_xlim(-0.2, len(values) + 0.2)
    name_axes(axes, table)
    axes.set_xlabel("Value")


def draw_lines(axes: Axes, table: Table, style: Style) -> None:
    """Draw lines from label to label."""
    for index, (name, values) in enumerate(zip(table.series, table.values, strict=True)):
        # A style without markers gets dots: values are at the labels, not between them.
        marker = style.marker or "."
        axes.plot(
            range(len(values)),
            values,
            marker=marker,
            color=table.colours.codes[index],
            label=name,
            markersize=5,
        )
    value_axis(axes, table, style, "y")
    label_axis(axes, table, style, "x", every_grid=True)
    name_axes(axes, table)


def draw_areas(axes: Axes, table: Table, style: Style) -> None:
    """Draw layers on top of each other, from label to label."""
    names = table.series if table.group else ()
    axes.stackplot(
        range(len(table.labels)),
        *table.values,
        labels=names,
        colors=table.colours.codes,
        edgecolor=_INK,
    )
    # The grid must lie over the layers, as values are read off it.
    axes.set_axisbelow(False)
    value_axis(axes, table, style, "y")
    label_axis(axes, table, style, "x", every_grid=True)
    axes.set_xlim(0, len(table.labels) - 1)
    name_axes(axes, table)


def draw_pie(axes: Axes, table: Table, style: Style) -> None:
    """Draw slices with percentages in them, and names beside them or in a legend."""
    (values,) = table.values
    beside = pie_radius(table, style)
    wedges, *_ = axes.pie(
        values,
        labels=table.labels if beside else None,
        radius=beside or 1,
        colors=table.colours.codes,
        startangle=90,
        counterclock=False,
        wedgeprops={"edgecolor": _PAPER, "width": (beside or 1) * (1 - style.hole)},
    )
    for wedge, value, colour, name in zip(
        wedges, values, table.colours.codes, table.labels, strict=True
    ):
        angle = np.deg2rad((wedge.theta1 + wedge.theta2) / 2)
        radius = 0.78 * (beside or 1)
        place = (radius * np.cos(angle), radius * np.sin(angle))
        axes.text(*place, f"{table.text(value)}%", ha="center", va="center", color=contrast(colour))
        wedge.set_label("" if beside else name)


def pie_radius(table: Table, style: Style) -> float | None:
    """Radius of a pie that leaves space for names beside the slices; None: the names go into a
    legend.
    """
    # The axes go from -1.25 to 1.25 and take about three quarters of the shorter side; names
    # are at 1.1 radii.
    widest = (
        2.5 * max(map(style.text_width, table.labels)) / (0.75 * min(style.width, style.height))
    )
    radius = round(min(1, (1.25 - widest) / 1.1), 3)
    roomy = min(style.width, style.height) >= 360 and min(table.values[0]) >= 9
    return radius if roomy and radius >= 0.7 else None


def draw_heat(axes: Axes, table: Table, style: Style) -> None:
    """Draw cells with their values in them, and a colour bar."""
    values = np.array(table.values)
    ramp = mpl.colormaps[style.ramp]
    image = axes.imshow(values, cmap=ramp, vmin=0, vmax=table.top, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = contrast(ramp(value / table.top)[:3])
        axes.text(column, row, table.text(int(value)), ha="center", va="center", color=colour)
    bar = axes.figure.colorbar(image, ax=axes, label=table.axis)
    ticks = range(0, table.top + 1, table.step)
    bar.set_ticks(list(ticks), labels=[table.text(tick) for tick in ticks])
    label_axis(axes, table, style, "x")
    axes.set_yticks(range(len(table.series)), table.series)
    axes.spines[:].set_visible(False)


def draw_boxes(axes: Axes, table: Table, style: Style) -> None:
    """Draw boxes from the lower to the upper quartile, with whiskers to minimum and maximum."""
    keys = dict(zip(QUARTILES, ("whislo", "q1", "med", "q3", "whishi"), strict=True))
    columns = zip(*table.values, strict=True)
    stats = [dict(zip(keys.values(), column, strict=True)) for column in columns]
    # From the five numbers themselves: `boxplot` would compute its own from samples.
    axes.bxp(
        stats,
        positions=range(len(stats)),
        widths=style.thickness * 0.7,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": table.colours.codes[0]},
        medianprops={"color": contrast(table.colours.codes[0]), "linewidth": 1.8},
    )
    value_axis(axes, table, style, "y")
    label_axis(axes, table, style, "x")
    name_axes(axes, table)


def draw_points(axes: Axes, cloud: Cloud, style: Style) -> None:
    """Draw points, with a colour and often a marker of its own for each group."""
    for index, (name, points) in enumerate(zip(cloud.groups, cloud.points, strict=True)):
        x, y = zip(*points, strict=True)
        marker = _MARKERS[index] if style.frame else "o"
        axes.scatter(
            x, y, 26, color=cloud.colours.codes[index], marker=marker, label=name, zorder=3
        )
    axes.set_xticks(range(0, cloud.tops[0] + 1, cloud.steps[0]))
    axes.set_yticks(range(0, cloud.tops[1] + 1, cloud.steps[1]))
    axes.set_xlim(0, cloud.tops[0])
    axes.set_ylim(0, cloud.tops[1])
    axes.grid(visible=True)
    axes.set_xlabel(f"{cloud.x.capitalize()} ({cloud.units[0]})")
    axes.set_ylabel(f"{cloud.y.capitalize()} ({cloud.units[1]})")


def contrast(colour: str | tuple[float, ...]) -> str:
    """Dark or light text colour, whichever has more contrast with `colour`."""
    # Relative luminance as in WCAG 2; at 0.18 black and white have the same contrast.
    linear = np.where(
        (srgb := np.array(to_rgb(colour))) <= 0.04, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4
    )
    return _INK if linear @ (0.2126, 0.7152, 0.0722) > 0.18 else _PAPER


def _edge(style: Style) -> dict[str, Any]:
    return {"edgecolor": _INK} if style.edges else {}
