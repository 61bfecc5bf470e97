"""Questions about tables. Each has exactly one answer, which can be read off the chart; where
there is none, None is returned and nothing is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

import numpy as np

from sailvit.synthetic.charts.tables import QUARTILES, WITH_LEGEND, Table


class ChartQuestion(NamedTuple):
    """A question with its answer."""

    form: str
    """Name of its form, such as `mean`."""
    text: str
    """The question itself."""
    answer: str
    """Its only answer: a number as the chart writes it, a name, yes or no."""


Ask = Callable[[Table, np.random.Generator], "tuple[str, str] | None"]

KIND_NAMES = {
    "bar": "bar chart",
    "horizontal": "horizontal bar chart",
    "grouped": "grouped bar chart",
    "stacked": "stacked bar chart",
    "line": "line chart",
    "area": "area chart",
    "pie": "pie chart",
    "histogram": "histogram",
    "heatmap": "heat map",
    "box": "box plot",
    "scatter": "scatter plot",
}
"""Kinds of charts in words."""
_PLACES = ("second", "third")


def some_questions(rng: np.random.Generator, table: Table, count: int) -> list[ChartQuestion]:
    """Up to `count` questions of different forms."""
    forms = FORMS if table.kind != "box" else _BOX_FORMS
    found: list[ChartQuestion] = []
    # Tried in random order, as most tables have no answer to some of the forms.
    for index in rng.permutation(len(forms)).tolist():
        name, ask = list(forms.items())[index]
        if len(found) < count and (asked := ask(table, rng)) is not None:
            found.append(ChartQuestion(name, *asked))
    return found


def unit(table: Table) -> str:
    """`, in UNIT`, the end of a question for a number; empty if there is no unit."""
    return f", in {table.quantity.unit}" if table.quantity.unit else ""


def of_series(table: Table, row: int) -> str:
    """The quantity in words, with the name of the series if there are several."""
    return f"the {table.quantity.name}" + (f" of {table.series[row]}" if table.group else "")


def cell_name(table: Table, row: int, column: int) -> str:
    """The quantity of one cell in words."""
    return f"{of_series(table, row)} {table.across.at} {table.labels[column]}"


def only(values: Sequence[int], wanted: int) -> int | None:
    """Index of `wanted`; None: it occurs more than once, so that there is no single answer."""
    return values.index(wanted) if values.count(wanted) == 1 else None


def _pick(table: Table, rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(len(table.series))), int(rng.integers(len(table.labels)))


def _pair(table: Table, rng: np.random.Generator) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Two cells of one series or of one label, the larger one first; None: they are equal."""
    row, column = _pick(table, rng)
    if len(table.series) > 1 and rng.random() < 0.5:
        other = (int(rng.choice([r for r in range(len(table.series)) if r != row])), column)
    else:
        other = (row, int(rng.choice([c for c in range(len(table.labels)) if c != column])))
    cells = sorted([(row, column), other], key=lambda cell: -table.values[cell[0]][cell[1]])
    equal = table.values[row][column] == table.values[other[0]][other[1]]
    return None if equal else (cells[0], cells[1])


def _value(table: Table, rng: np.random.Generator) -> tuple[str, str]:
    row, column = _pick(table, rng)
    return f"What is {cell_name(table, row, column)}{unit(table)}?", table.text(
        table.values[row][column]
    )


def _extreme(table: Table, rng: np.random.Generator) -> tuple[str, str] | None:
    row, _ = _pick(table, rng)
    values = table.values[row]
    word, wanted = (("highest", max(values)), ("lowest", min(values)))[rng.integers(2)]
    place = only(values, wanted)
    text = f"For which {table.across.noun} is {of_series(table, row)} {word}?"
    return None if place is None else (text, table.labels[place])


def _rank(table: Table, rng: np.random.Generator) -> tuple[str, str] | None:
    row, _ = _pick(table, rng)
    values, rank = table.values[row], int(rng.integers(1, 3))
    ordered = sorted(values, reverse=True)
    # Equal values around the asked rank would leave two answers.
    if len(values) <= rank or len(set(ordered[: rank + 2])) < len(ordered[: rank + 2]):
        return None
    text = f"For which {table.across.noun} is {of_series(table, row)} {_PLACES[rank - 1]} highest?"
    return text, table.labels[values.index(ordered[rank])]


def _leader(table: Table, rng: np.random.Generator) -> tuple[str, str] | None:
    if table.group is None:
        return None
    _, column = _pick(table, rng)
    values = [row[column] for row in table.values]
    place = only(values, max(values))
    text = f"Which {table.group.noun} has the highest {table.quantity.name}"
    text += f" {table.across.at} {table.labels[column]}?"
    return None if place is None else (text, table.series[place])


def _difference(table: Table, rng: np.random.Generator) -> tuple[str, str] | None:
    pair = _pair(table, rng)
    if pair is None:
        return None
    (a, b), (c, d) = pair
    text = f"By how much is {cell_name(table, a, b)} higher than"
    text += f" {cell_name(table, c, d)}{unit(table)}?"
    return text, table.text(table.values[a][b] - table.values[c][d])


def _compare(table: Table, rng: np.random.Generator) -> tuple[str, str] | None:
    pair = _pair(table, rng)
    if pair is None:
        return None
    swapped = bool(rng.integers(2))
    first, second = pair[::-1] if swapped else pair
    text = f"Is {cell_name(table, *first)} higher than {cell_name(table, *second)}?"
    return text, "no" if swapped else "yes"


def _sum(table: Table, rng: np.random.Generator) -> tuple[str, str] | None:
    # The shares of a pie always make 100, and a sum of temperatures means nothing.
    if table.kind == "pie" or not table.quantity.adds:
        return None
    row, column = _pick(table, rng)
    if table.group and rng.random() < 0.5:
        name = f"the {table.quantity.name} of all {table.group.plural}"
        name += f" {table.across.at} {table.labels[column]}"
        total = sum(values[column] for values in table.values)
    else:
        name = f"{of_series(table, row)} over all {table.across.plural} shown"
        total = sum(table.values[row])
    return f"What is the sum of {name}{unit(table)}?", table.text(total)


def _mean(table: Table, rng: np.random.Generator) -> tuple[str, str] | None:
    # The mean of a pie is 100 / n, and that of a histogram is not the mean of its data.
    if table.kind in ("pie", "histogram"):
        return None
    row, _ = _pick(table, rng)
    mean = Decimal(sum(table.values[row])) / len(table.labels) / 10**table.quantity.decimals
    # A mean half-way between two answers: which is right depends on the rule of rounding.
    if (mean * 100) % 10 == 5:
        return None
    text = f"What is the mean of {of_series(table, row)} over all {table.across.plural}"
    text += f" shown{unit(table)}"
    return f"{text}, rounded to one decimal?", str(mean.quantize(Decimal("0.1"), ROUND_HALF_UP))


def _above(table: Table, rng: np.random.Generator) -> tuple[str, str] | None:
    row, _ = _pick(table, rng)
    limit = table.step * int(rng.integers(1, table.top // table.step))
    # A value on the limit itself can be taken for one above it.
    if limit in table.values[row]:
        return None
    count = sum(value > limit for value in table.values[row])
    amount = f"{table.text(limit)} {table.quantity.unit}".strip()
    text = f"For how many {table.across.plural} is {of_series(table, row)} above {amount}?"
    return text, str(count)


def _labels(table: Table, rng: np.random.Generator) -> tuple[str, str]:
    return f"How many {table.across.plural} does the chart show?", str(len(table.labels))


def _series(table: Table, rng: np.random.Generator) -> tuple[str, str] | None:
    if table.group is None:
        return None
    return f"How many {table.group.plural} does the chart compare?", str(len(table.series))


def _colour(table: Table, rng: np.random.Generator) -> tuple[str, str] | None:
    named = (
        table.series
        if table.group and table.kind in WITH_LEGEND
        else table.labels
        if table.kind == "pie"
        else ()
    )
    if not named or not table.colours.names:
        return None
    index = int(rng.integers(len(named)))
    if rng.random() < 0.5:
        return f"Which colour stands for {named[index]}?", table.colours.names[index]
    return f"What does the colour {table.colours.names[index]} stand for?", named[index]


def _trend(table: Table, rng: np.random.Generator) -> tuple[str, str] | None:
    row, _ = _pick(table, rng)
    first, last = table.values[row][0], table.values[row][-1]
    # Ends that differ by less than a grid line are too close to be told apart by eye.
    if not table.across.ordered or table.kind == "histogram" or abs(last - first) < table.step:
        return None
    text = f"Is {of_series(table, row)} higher or lower {table.across.at} {table.labels[-1]} than"
    return f"{text} {table.across.at} {table.labels[0]}?", "higher" if last > first else "lower"


def _title(table: Table, rng: np.random.Generator) -> tuple[str, str]:
    return "What is the title of the chart?", table.title


def _kind(table: Table, rng: np.random.Generator) -> tuple[str, str]:
    return "What kind of chart is this?", KIND_NAMES[table.kind]


def _table(table: Table, rng: np.random.Generator) -> tuple[str, str]:
    rows = [[table.across.noun, *(name or table.quantity.name for name in table.series)]]
    columns = zip(*table.values, strict=True)
    rows += [
        [label, *map(table.text, column)]
        for label, column in zip(table.labels, columns, strict=True)
    ]
    ask = f"Write the chart's data as a table, one {table.across.noun} per line,"
    ask += " columns separated by |."
    return ask, "\n".join(" | ".join(row) for row in rows)


def _box_value(table: Table, rng: np.random.Generator) -> tuple[str, str]:
    row, column = _pick(table, rng)
    name = f"the {QUARTILES[row]} of the {table.quantity.name}"
    name += f" {table.across.at} {table.labels[column]}"
    # Said, as most programs end whiskers at 1.5 times the interquartile range.
    text = f"What is {name}{unit(table)}? The whiskers reach the minimum and the maximum."
    return text, table.text(table.values[row][column])


def _box_extreme(table: Table, rng: np.random.Generator) -> tuple[str, str] | None:
    medians = table.values[QUARTILES.index("median")]
    word, wanted = (("highest", max(medians)), ("lowest", min(medians)))[rng.integers(2)]
    place = only(medians, wanted)
    text = f"For which {table.across.noun} is the median of the {table.quantity.name} {word}?"
    return None if place is None else (text, table.labels[place])


def _box_spread(table: Table, rng: np.random.Generator) -> tuple[str, str]:
    _, column = _pick(table, rng)
    low, high = (
        table.values[QUARTILES.index(f"{end} quartile")][column] for end in ("lower", "upper")
    )
    name = f"the interquartile range of the {table.quantity.name}"
    name += f" {table.across.at} {table.labels[column]}"
    return f"What is {name}{unit(table)}?", table.text(high - low)


FORMS: dict[str, Ask] = {
    "value": _value,
    "extreme": _extreme,
    "rank": _rank,
    "leader": _leader,
    "difference": _difference,
    "compare": _compare,
    "sum": _sum,
    "mean": _mean,
    "above": _above,
    "labels": _labels,
    "series": _series,
    "colour": _colour,
    "trend": _trend,
    "title": _title,
    "kind": _kind,
    "table": _table,
}
"""Forms of questions about all tables but box plots, by name."""
_BOX_FORMS: dict[str, Ask] = {
    "box value": _box_value,
    "box extreme": _box_extreme,
    "box spread": _box_spread,
    "labels": _labels,
    "title": _title,
    "kind": _kind,
}
