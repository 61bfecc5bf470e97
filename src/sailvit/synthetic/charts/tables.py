"""The content of a chart, as a table of numbers that can be read off it exactly: they are
printed, or lie on a grid line or half-way between two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sailvit.synthetic.charts.colours import Colours, some_colours
from sailvit.synthetic.charts.topics import KINS, TOPICS, Kin, Quantity, some_names

TableKind = Literal[
    "bar", "horizontal", "grouped", "stacked", "line", "area", "pie", "histogram", "heatmap", "box"
]
QUARTILES = ("minimum", "lower quartile", "median", "upper quartile", "maximum")
"""The series of a box plot, from the lower whisker's end to the upper one's."""
LINES = ("line", "area")
"""Kinds that join their values by lines, so that labels must have an order."""
ADDED = ("stacked", "area", "pie", "heatmap")
"""Kinds for quantities whose sums mean something."""
WITH_LEGEND = ("grouped", "stacked", "line", "area")
"""Kinds that have a legend if there are several series."""

_LABELS = {
    "grouped": (2, 6),
    "stacked": (3, 6),
    "line": (4, 9),
    "area": (4, 9),
    "pie": (3, 7),
    "box": (2, 6),
}
_SERIES = {"grouped": (2, 4), "stacked": (2, 4), "line": (1, 4), "area": (1, 3), "heatmap": (3, 6)}
# Share of charts with printed numbers; pies and heat maps have no axis to read them off.
_PRINTED = {
    "bar": 0.4,
    "horizontal": 0.4,
    "grouped": 0.3,
    "stacked": 0.5,
    "histogram": 0.4,
    "pie": 1,
    "heatmap": 1,
}
_LEAST_SHARE = 0.09
"""Smallest segment, as a share of its axis: a printed number must fit into it."""
_BINNED = (
    "trip lengths",
    "prices",
    "waiting times",
    "delivery times",
    "reading speeds",
    "parcel weights",
    "depths",
)


@dataclass(frozen=True)
class Table:
    """The content of a chart. Values are integers in units of the last decimal, so that sums
    and differences are exact.
    """

    kind: TableKind
    """The kind of chart that it is drawn as."""
    title: str
    """The title."""
    quantity: Quantity
    """What the values measure."""
    across: Kin
    """What the labels name."""
    group: Kin | None
    """What the series name; None: a single series, or the five numbers of a box plot."""
    labels: tuple[str, ...]
    """Labels along the axis, of the slices of a pie, or of the columns of a heat map."""
    series: tuple[str, ...]
    """Names in the legend, or of the rows of a heat map; one empty name for a single series."""
    values: tuple[tuple[int, ...], ...]
    """Values by series and label."""
    step: int
    """Distance of two grid lines."""
    top: int
    """End of the value axis, which starts at 0."""
    printed: bool
    """Whether values are printed at their marks; false: they lie on grid lines or half-way
    between two."""
    colours: Colours
    """Colours of the series, or of the slices of a pie."""

    def text(self, value: int) -> str:
        """A value as it is written, on the chart and in answers."""
        return f"{value / 10**self.quantity.decimals:.{self.quantity.decimals}f}"

    @property
    def axis(self) -> str:
        """Label of the value axis, with its unit."""
        name = self.quantity.name[0].upper() + self.quantity.name[1:]
        return f"{name} ({self.quantity.unit})" if self.quantity.unit else name


def draw_table(rng: np.random.Generator, kind: TableKind) -> Table:
    """A random table of one kind."""
    if kind == "histogram":
        return _histogram(rng)
    quantity, across, group = _subject(rng, kind)
    labels = some_names(rng, across, _count(rng, _LABELS.get(kind, (3, 8)), len(across.names)))
    series = (
        some_names(rng, group, _count(rng, _SERIES[kind], len(group.names))) if group else ("",)
    )
    printed = bool(rng.random() < _PRINTED.get(kind, 0))
    if kind == "pie":
        quantity = Quantity(f"share of {quantity.name.removeprefix('number of ')}", "percent")
        step, top = 10, 100
        values: tuple[tuple[int, ...], ...] = (_shares(rng, len(labels)),)
    else:
        step, top = _scale(rng, quantity)
        series = QUARTILES if kind == "box" else series
        values = _values(rng, kind, (len(series), len(labels)), _levels(step, top, printed=printed))
    # Nothing is compared then, so no question may name a series.
    if len(series) == 1 or kind == "box":
        group = None
    return Table(
        kind=kind,
        title=_title(rng, quantity, across, group),
        quantity=quantity,
        across=across,
        group=group,
        labels=labels,
        series=series,
        values=values,
        step=step,
        top=top,
        printed=printed,
        colours=some_colours(rng, len(labels) if kind == "pie" else len(series)),
    )


def _subject(rng: np.random.Generator, kind: TableKind) -> tuple[Quantity, Kin, Kin | None]:
    """A quantity, what the labels name, and what the series name (None: no series)."""
    # Drawn anew until they fit: sums of temperatures mean nothing, and lines need an order.
    while True:
        topic = TOPICS[rng.integers(len(TOPICS))]
        quantity = topic.quantities[rng.integers(len(topic.quantities))]
        across = KINS[topic.across[rng.integers(len(topic.across))]]
        group = KINS[topic.groups[rng.integers(len(topic.groups))]]
        apart = kind not in _SERIES or across.noun != group.noun
        suits = quantity.adds or kind not in ADDED
        if apart and suits and (across.ordered or kind not in LINES):
            return quantity, across, group if kind in _SERIES else None


def _count(rng: np.random.Generator, limits: tuple[int, int], most: int) -> int:
    return int(rng.integers(min(limits[0], most), min(limits[1], most) + 1))


def _scale(rng: np.random.Generator, quantity: Quantity) -> tuple[int, int]:
    """Distance of grid lines and end of the value axis, 5 to 8 steps from 0."""
    step = int(rng.choice(quantity.steps))
    return step, step * int(rng.integers(5, 9))


def _levels(step: int, top: int, *, printed: bool) -> NDArray[np.int64]:
    """Possible values: all integers if they are printed, else those on or half-way between grid
    lines.
    """
    grain = 1 if printed else max(1, step // 2)
    return np.arange(grain, top + 1, grain)


def _values(
    rng: np.random.Generator, kind: TableKind, shape: tuple[int, int], levels: NDArray[np.int64]
) -> tuple[tuple[int, ...], ...]:
    """Values per series and label, all among `levels`."""
    if kind == "box":
        places = [np.sort(rng.choice(len(levels), 5, replace=False)) for _ in range(shape[1])]
        rows = levels[np.array(places).T]
    elif kind in ("stacked", "area"):
        rows = _stack(rng, shape, levels)
    elif kind == "line":
        rows = levels[_apart(_walks(rng, shape, len(levels)), len(levels))]
    else:
        # Different values where there are enough: equal ones leave questions open.
        few = len(levels) < shape[1]
        least = levels[levels >= _LEAST_SHARE * levels[-1]]
        rows = np.array(
            [
                rng.choice(least, shape[1], replace=few or len(least) < shape[1])
                for _ in range(shape[0])
            ]
        )
    return tuple(tuple(map(int, row)) for row in rows)


def _stack(
    rng: np.random.Generator, shape: tuple[int, int], levels: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Values for layers whose sums do not exceed the axis."""
    most = levels[-1] / shape[0]
    fitting = levels[
        (levels <= most) & ((levels >= _LEAST_SHARE * levels[-1]) | (levels > most / 2))
    ]
    layers: NDArray[np.int64] = rng.choice(fitting if len(fitting) else levels[:1], shape)
    return layers


def _walks(rng: np.random.Generator, shape: tuple[int, int], levels: int) -> NDArray[np.int64]:
    """Indices int[series, labels] of levels that drift as real curves do."""
    start = rng.uniform(0, levels, (shape[0], 1))
    drift = rng.normal(0, levels / shape[1] / 2, (shape[0], 1)) * np.arange(shape[1])
    noise = rng.normal(0, levels / 10, shape).cumsum(axis=1)
    places: NDArray[np.int64] = (
        np.clip(start + drift + noise, 0, levels - 1).round().astype(np.int64)
    )
    return places


def _apart(places: NDArray[np.int64], levels: int) -> NDArray[np.int64]:
    """The same curves, moved so that no two share a place: a hidden mark cannot be read."""
    for column in places.T:
        for row in range(1, len(column)):
            free = sorted(
                set(range(levels)) - set(column[:row].tolist()),
                key=lambda at: abs(at - column[row]),
            )
            column[row] = free[0]
    return places


def _shares(rng: np.random.Generator, count: int) -> tuple[int, ...]:
    """Whole percentages that make 100, all different and at least 4."""
    while True:
        cuts = np.sort(rng.choice(np.arange(1, 100), count - 1, replace=False))
        shares = np.diff(np.concatenate([[0], cuts, [100]]))
        if shares.min() >= 4 and len(set(shares.tolist())) == count:
            return tuple(map(int, shares))


def _histogram(rng: np.random.Generator) -> Table:
    """A random histogram, with a hump as many distributions have."""
    width, bins = int(rng.choice((5, 10, 20, 50))), int(rng.integers(4, 9))
    start = width * int(rng.integers(0, 4))
    quantity = Quantity("number of values", "", (2, 4, 10, 20))
    step, top = _scale(rng, quantity)
    printed = bool(rng.random() < _PRINTED["histogram"])
    levels = _levels(step, top, printed=printed)
    hump = np.exp(-(((np.arange(bins) - rng.uniform(0, bins - 1)) / rng.uniform(1, bins / 2)) ** 2))
    places = np.clip(
        hump * len(levels) * rng.uniform(0.6, 1) + rng.normal(0, 1, bins), 0, len(levels) - 1
    )
    what = _BINNED[rng.integers(len(_BINNED))]
    labels = tuple(f"{start + width * n}-{start + width * (n + 1)}" for n in range(bins))
    return Table(
        kind="histogram",
        title=f"Distribution of {what}",
        quantity=quantity,
        across=Kin("range", "ranges", labels, ordered=True, at="in the range"),
        group=None,
        labels=labels,
        series=("",),
        values=(tuple(map(int, levels[places.astype(np.int64)])),),
        step=step,
        top=top,
        printed=printed,
        colours=some_colours(rng, 1),
    )


def _title(rng: np.random.Generator, quantity: Quantity, across: Kin, group: Kin | None) -> str:
    name = quantity.name[0].upper() + quantity.name[1:]
    by = f"{group.noun} and {across.noun}" if group else across.noun
    forms = [f"{name} by {by}", f"{name} per {by}"]
    # A year in the title, unless the labels are years, months or weeks themselves.
    if not {"in"} & {across.at, group.at if group else ""}:
        forms.append(f"{name} by {by}, {rng.integers(1990, 2030)}")
    return forms[rng.integers(len(forms))]
