"""A study's report: one page and the same tables as text, from results.json alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sailvit.core.outputs import refuse_foreign_file, write_output
from sailvit.core.run import read_json
from sailvit.core.study.units import NATS, UNITS, Unit
from sailvit.report.drawing import (
    FAINT,
    HEIGHT,
    INK,
    PAPER,
    REFINED,
    WIDTH,
    Chart,
    canvas,
    label,
    to_svg,
)
from sailvit.report.templates import template

Difference = Mapping[str, Any]
"""A difference as results.json has it."""


def write_study_report(results: Path) -> Path:
    """Path of the written page, beside `results`; tables.md lies there too."""
    data = read_json(results)
    page, text = results.with_name("report.html"), results.with_name("tables.md")
    refuse_foreign_file(page)
    dimensions = tables(data["differences"])
    charts = [difference_chart(each) for each in dimensions]
    html = template("study.html").render(
        data=data, tables=dimensions, charts=charts, row_cells=row_cells
    )
    write_output(page, html)
    write_output(text, as_text(data))
    return page


@dataclass(frozen=True)
class Dimension:
    """A table of differences."""

    title: str
    """The factor, or the factors, and the measure."""
    rows: list[tuple[str, Difference]]
    """Differences with what they are called."""

    @property
    def unit(self) -> Unit:
        """What its differences are counted in."""
        return UNITS[self.rows[0][1]["unit"]]

    @property
    def heads(self) -> tuple[str, ...]:
        """Headings of the columns that `row_cells` gives."""
        return ("base", "mean", self.unit.name, "95 % over seeds", "seeds", "p (Holm)")


def tables(differences: Sequence[Difference]) -> list[Dimension]:
    """A table per dimension: the contrast's levels where all else is at its default, then every
    other factor, then what differs in several; without those of which no cell is there.
    """
    found: dict[tuple[str, ...], list[Difference]] = {}
    for each in differences:
        found.setdefault((each["measure"], *each["changed"]), []).append(each)
    made = []
    for (measure, *changed), own in found.items():
        arms = {row["better"] for row in own}
        # What the levels are to be read against: the same levels by default.
        same = found.get((measure,), []) if changed else []
        rows = [*(row for row in same if row["better"] in arms), *own]
        title = f"{' and '.join(changed) or own[0]['factor']} ({_named(own[0])})"
        if any(row["seeds"] for row in rows):
            made.append(Dimension(title, [(_label(row, changed, rows), row) for row in rows]))
    return made


def _label(row: Difference, changed: Sequence[str], rows: Sequence[Difference]) -> str:
    """What a row is about: the levels that its table changes, and the contrast's level where
    there are several.
    """
    levels = [row["others"][factor] for factor in changed]
    arms = {each["better"] for each in rows}
    return ", ".join([*([row["better"]] if len(arms) > 1 or not changed else []), *levels])


def difference_chart(dimension: Dimension) -> Chart:
    """Differences with their intervals, one below the other."""
    known = [(name, row) for name, row in dimension.rows if row["seeds"]]
    with canvas(WIDTH + 120, max(HEIGHT // 2, 70 + 26 * len(known))) as (figure, axes):
        for place, (_, row) in enumerate(reversed(known)):
            low, high = row["low"], row["high"]
            if low is not None:
                axes.plot([low, high], [place, place], color=REFINED, linewidth=2)
            fill = REFINED if row["word"] in ("improves", "worse") else PAPER
            axes.plot(row["difference"], place, "o", color=REFINED, markerfacecolor=fill)
        axes.axvline(0, color=FAINT, linewidth=1)
        axes.set_yticks(range(len(known)), [name for name, _ in reversed(known)], color=INK)
        axes.set_ylim(-0.6, len(known) - 0.4)
        unit = dimension.unit
        axis = f"{unit.name} above {known[0][1]['than']}, 95 % over seeds"
        label(axes, dimension.title, axis, "")
        told = "; ".join(f"{name} {row['difference']:+.{unit.digits}f}" for name, row in known)
        alt = f"{dimension.title}: {unit.name} above the base: {told}."
        svg = to_svg(figure, f"study-{dimension.title}", alt)
    return Chart(svg, "Filled: the difference is shown after Holm's correction.")


def as_text(data: Mapping[str, Any]) -> str:
    """The tables and sentences as Markdown."""
    cells = data["cells"]
    lines = [f"# Study {data['study']}", "", f"{cells['done']} of {cells['all']} cells.", ""]
    lines += [f"- {claim['sentence']}" for claim in data["claims"]]
    for each in tables(data["differences"]):
        lines += ["", *dimension_text(each, "##")]
    if cells["failed"]:
        lines += ["", "## Failed cells", ""]
        lines += [f"- {name}: {reason}" for name, reason in cells["failed"].items()]
    if cells["of another version"]:
        told = ", ".join(cells["of another version"])
        lines += ["", f"Left out, as the study has changed since they were trained: {told}."]
    if cells["missing"]:
        lines += ["", f"Cells that are not there yet: {', '.join(cells['missing'])}."]
    return "\n".join(lines) + "\n"


def dimension_text(dimension: Dimension, level: str) -> list[str]:
    """Lines of a table in Markdown, under a heading of this level, such as `##`."""
    heads = f"| | {' | '.join(dimension.heads)} |"
    rows = [f"| {name} | {' | '.join(row_cells(row))} |" for name, row in dimension.rows]
    return [f"{level} {dimension.title}", "", heads, "|---" * 7 + "|", *rows]


def row_cells(row: Difference) -> list[str]:
    """A difference's numbers as texts, in the order of the tables' columns."""
    if row["difference"] is None:
        return ["", "", "", "", "0", ""]
    digits = UNITS[row["unit"]].digits
    spread = "" if row["low"] is None else f"{row['low']:+.{digits}f} {row['high']:+.{digits}f}"
    chance = "" if row["corrected"] is None else _chance(row["corrected"])
    return [
        _mean(row, row["than mean"]),
        _mean(row, row["better mean"]),
        f"{row['difference']:+.{digits}f}",
        spread,
        str(len(row["seeds"])),
        chance,
    ]


def _named(row: Difference) -> str:
    """A difference's measure, with what its means are where more is not better."""
    return f"{row['measure']}{', perplexity: less is better' if _is_text(row) else ''}"


def _is_text(row: Difference) -> bool:
    return bool(row["unit"] == NATS.name)


def _mean(row: Difference, value: float) -> str:
    """A mean as text: of texts the perplexity, which readers know better than nats."""
    # exp overflows a float above 709.
    return f"{math.exp(min(value, 700.0)):.3g}" if _is_text(row) else f"{value:.1f}"


def _chance(corrected: float) -> str:
    return "< 0.001" if corrected < 0.001 else f"{corrected:.2g}"
