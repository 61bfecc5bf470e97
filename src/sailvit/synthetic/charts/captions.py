"""Captions of charts, in which every statement is true of the drawing."""

from __future__ import annotations

import numpy as np

from sailvit.synthetic.charts.clouds import Cloud
from sailvit.synthetic.charts.questions import KIND_NAMES, of_series, only
from sailvit.synthetic.charts.tables import QUARTILES, Table

REQUESTS = (
    "Describe the chart.",
    "Write a caption for this chart.",
    "Summarise what the chart shows.",
    "What does this chart tell?",
)
"""Requests for a caption."""


def caption_of(rng: np.random.Generator, chart: Table | Cloud) -> str:
    """A few sentences about a chart."""
    return _cloud_caption(rng, chart) if isinstance(chart, Cloud) else _table_caption(rng, chart)


def listed(names: tuple[str, ...]) -> str:
    """Names as a list in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _table_caption(rng: np.random.Generator, table: Table) -> str:
    unit = f" in {table.quantity.unit}" if table.quantity.unit else ""
    what = _with_article(KIND_NAMES[table.kind])
    openings = (
        f'{what} titled "{table.title}". It shows the {table.quantity.name}{unit}',
        f'This is {what[0].lower()}{what[1:]} with the title "{table.title}",'
        f" showing the {table.quantity.name}{unit}",
    )
    whom = f" of {listed(table.series)}" if table.group else ""
    sentences = [f"{openings[rng.integers(2)]}{whom} {table.across.at} {listed(table.labels)}"]
    rows = [QUARTILES.index("median")] if table.kind == "box" else range(len(table.series))
    sentences += [fact for row in rows for fact in _facts(table, row)]
    return ". ".join(sentences) + "."


def _facts(table: Table, row: int) -> list[str]:
    """The highest and the lowest value of one series, if there is only one of them."""
    values = table.values[row]
    name = (
        of_series(table, row) if table.kind != "box" else f"the median of the {table.quantity.name}"
    )
    name = name[0].upper() + name[1:]
    high, low = only(values, max(values)), only(values, min(values))
    ends = [
        f"{word} {table.across.at} {table.labels[place]} ({table.text(values[place])})"
        for word, place in (("highest", high), ("lowest", low))
        if place is not None
    ]
    return [f"{name} is {' and '.join(ends)}"] if ends else []


def _cloud_caption(rng: np.random.Generator, cloud: Cloud) -> str:
    count = len(cloud.everything)
    openings = ("A scatter plot", "This scatter plot")
    text = f'{openings[rng.integers(2)]} titled "{cloud.title}" '
    text += f"shows {cloud.y} in {cloud.units[1]} against {cloud.x} in {cloud.units[0]}"
    text += f" for {count} points"
    if len(cloud.groups) > 1:
        groups = zip(cloud.groups, cloud.points, strict=True)
        text += f": {listed(tuple(f'{len(points)} of {name}' for name, points in groups))}"
    # Points on one line along an axis have no correlation: 0 / 0.
    with np.errstate(invalid="ignore"):
        correlation = float(np.corrcoef(np.array(cloud.everything, dtype=float).T)[0, 1])
    if abs(correlation) > 0.7:
        way = "rises" if correlation > 0 else "falls"
        text += f". On the whole, {cloud.y} {way} as {cloud.x} grows"
    return text + "."


def _with_article(name: str) -> str:
    return ("An " if name[0] in "aeiou" else "A ") + name
