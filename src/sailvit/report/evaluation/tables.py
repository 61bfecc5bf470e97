"""Tables of the page about an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sailvit.core.formatting import MISSING

TITLES = {
    "nearest": "nearest, mean",
    "wasserstein": "Wasserstein",
    "mean": "all pairs, mean",
    "centroids": "between the means",
    "sliced_wasserstein": "sliced Wasserstein",
    "mutual_knn": "mutual neighbours",
    "linear_cka": "linear CKA",
    "kernel_cka": "kernel CKA",
    "image_to_text_at_1": "image to text at 1",
    "image_to_text_at_5": "image to text at 5",
    "text_to_image_at_1": "text to image at 1",
    "text_to_image_at_5": "text to image at 5",
}
"""Measures of affinity.json as tables call them."""


@dataclass(frozen=True)
class MeasureRow:
    """One measure of one tower."""

    measure: str
    """What was measured."""
    tower: str
    """The tower."""
    found: Mapping[str, Any]
    """`value`, `low`, `high`, `chance`, `n`."""

    @property
    def value(self) -> str:
        """The value in three digits."""
        return _number(self.found["value"])

    @property
    def interval(self) -> str:
        """The ends of its 95 % interval."""
        if self.found["low"] is None:
            return MISSING
        return f"{_number(self.found['low'])} to {_number(self.found['high'])}"

    @property
    def chance(self) -> str:
        """What it would be by chance."""
        return MISSING if self.found["chance"] is None else _number(self.found["chance"])


@dataclass(frozen=True)
class MeasureTable:
    """Measures that belong together."""

    title: str
    """What they are measures of."""
    better: str
    """Which way is better: `smaller: closer`, ..."""
    rows: list[MeasureRow]
    """Measure by measure, tower by tower."""

    @property
    def groups(self) -> list[tuple[str, list[MeasureRow]]]:
        """Each measure with its rows."""
        names = dict.fromkeys(row.measure for row in self.rows)
        return [(name, [row for row in self.rows if row.measure == name]) for name in names]

    def flat(self) -> list[list[Any]]:
        """Its rows as cells of a CSV file."""
        keys = ("value", "low", "high", "chance", "n")
        return [
            [self.title, row.measure, row.tower, *(row.found[key] for key in keys)]
            for row in self.rows
        ]


def measure_tables(found: Mapping[str, Any]) -> list[MeasureTable]:
    """All tables of affinity.json that have a row."""
    published, joint = found.get("published", ()), found.get("joint", ())
    tables = []
    for name in dict.fromkeys(each["language"] for each in published):
        beside = [each for each in published if each["language"] == name]
        paired = [each for each in found["paired"] if each["language"] == name]
        title = f"patches and {name}, as published"
        tables.append(MeasureTable(title, "smaller: closer", _rows(beside, "distances")))
        title = f"pictures and captions in {name}"
        tables.append(MeasureTable(title, "larger: more alike", _rows(paired, "measures")))
    title = "behind the connector, in full width"
    tables.append(MeasureTable(title, "smaller: closer", _rows(joint, "distances")))
    title = "captions found by pictures, and the reverse"
    tables.append(MeasureTable(title, "larger: better", _rows(joint, "retrieval")))
    tables.append(MeasureTable("scores", "", _scores(found)))
    return [table for table in tables if table.rows]


def _scores(found: Mapping[str, Any]) -> list[MeasureRow]:
    joint = found.get("joint", ())
    rows = [
        MeasureRow("integration rate (smaller)", each["tower"], each["integration"]["rate"])
        for each in joint
        if each["integration"]
    ]
    rows += [
        MeasureRow("alignment score", each["tower"], each["alignment"])
        for each in joint
        if each["alignment"]
    ]
    return rows + [
        MeasureRow(f"correspondence, {each['set']}", each["tower"], each["score"])
        for each in found.get("correspondence", ())
    ]


def _rows(entries: Sequence[Mapping[str, Any]], section: str) -> list[MeasureRow]:
    measures = dict.fromkeys(name for each in entries for name in each[section])
    return [
        MeasureRow(_title(name), each["tower"], each[section][name])
        for name in measures
        for each in entries
        if name in each[section]
    ]


def _title(name: str) -> str:
    plain = name.removeprefix("unit_")
    return TITLES.get(plain, plain) + (", unit rows" if plain != name else "")


def set_table(
    models: Mapping[str, Mapping[str, Any]], sets: Sequence[str]
) -> list[tuple[str, list[tuple[str, str]]]]:
    """A row per set: its name, and each model's score with the number of unparsed answers."""
    rows = []
    for name in sets:
        cells = []
        for model in models.values():
            found = model["sets"].get(name)
            if found is None:
                cells.append((MISSING, ""))
                continue
            score = "no score" if found["score"] is None else f"{found['score']:.1f}"
            note = f"{found['unparsed']} unparsed" if found["unparsed"] else ""
            cells.append((score, note))
        rows.append((name, cells))
    return rows


def probe_table(
    rows: Sequence[Mapping[str, Any]], best_layers: Mapping[str, Mapping[str, int]]
) -> list[tuple[str, list[str]]]:
    """A row per probe, set and metric: each tower's value at its best layer of that probe.

    `best_layers` were chosen without the test sets; the last layer stands for one that is missing.
    """
    towers = list(dict.fromkeys(row["tower"] for row in rows))
    names = dict.fromkeys((row["probe"], row["set"], row["metric"]) for row in rows)
    table = []
    for probe, name, metric in names:
        cells = []
        for tower in towers:
            key = (tower, probe, name, metric)
            mine = {
                row["layer"]: row
                for row in rows
                if (row["tower"], row["probe"], row["set"], row["metric"]) == key
            }
            cells.append(_at(best_layers.get(tower, {}).get(probe), mine))
        table.append((f"{probe}, {name}, {metric}", cells))
    return table


def _at(layer: int | None, rows: Mapping[int, Mapping[str, Any]]) -> str:
    if not rows:
        return MISSING
    row = rows[max(rows) if layer is None or layer not in rows else layer]
    where = "" if row["layer"] < 0 else f", layer {row['layer']}"
    return f"{row['value']:.1f} ({row['low']:.1f} to {row['high']:.1f}){where}"


def _number(value: float) -> str:
    return f"{value:.3g}"
