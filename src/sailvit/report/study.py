"""A study's report: one page and the same tables as text, from results.json alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sailvit.core.outputs import refuse_foreign_file, write_output
from sailvit.core.run import read_json
from sailvit.report.drawing import FAINT, HEIGHT, INK, PAPER, REFINED, WIDTH, Chart, canvas, to_svg
from sailvit.report.templates import template

Difference = Mapping[str, Any]
"""A difference as results.json has it."""


def write_study_report(results: Path) -> Path:
    """Path of the written page, beside `results`; tables.md lies there too."""
    data = read_json(results)
    page, text = results.with_name("report.html"), results.with_name("tables.md")
    refuse_foreign_file(page)
    dimensions = tables(data["differences"])
    charts = [chart for title, rows in dimensions if (chart := difference_chart(title, rows))]
    html = template("study.html").render(
        data=data, tables=dimensions, charts=charts, label=label, row_cells=row_cells
    )
    write_output(page, html)
    write_output(text, as_text(data))
    return page


def tables(differences: Sequence[Difference]) -> list[tuple[str, list[Difference]]]:
    """A table per dimension with its title: the contrast's levels where all else is at its
    default, then every other factor, then what differs in several.
    """
    found: dict[str, list[Difference]] = {}
    for each in differences:
        changed = list(each["changed"])
        named = each["factor"] if not changed else " and ".join(changed)
        found.setdefault(f"{named} ({each['measure']})", []).append(each)
    defaults = [each for each in differences if not each["changed"]]
    for title, rows in found.items():
        if rows[0]["changed"]:
            # What the levels are to be read against: the same levels by default.
            shown = {row["better"] for row in rows}
            same = [d for d in defaults if d["measure"] == rows[0]["measure"]]
            found[title] = [*(d for d in same if d["better"] in shown), *rows]
    return list(found.items())


def label(row: Difference) -> str:
    """What is compared in a row: `gradual, tower aimv2`."""
    changed = ", ".join(f"{factor} {level}" for factor, level in row["changed"].items())
    return ", ".join(filter(None, [row["better"], changed]))


def difference_chart(title: str, rows: Sequence[Difference]) -> Chart | None:
    """Differences with their intervals, one below the other; None without any."""
    known = [row for row in rows if row["points"] is not None]
    if not known:
        return None
    height = max(HEIGHT // 2, 60 + 26 * len(known))
    with canvas(WIDTH + 120, height) as (figure, axes):
        for place, row in enumerate(reversed(known)):
            low, high = row["low"], row["high"]
            if low is not None:
                axes.plot([low, high], [place, place], color=REFINED, linewidth=2)
            shown = row["word"] in ("improves", "worse")
            fill = REFINED if shown else PAPER
            axes.plot(row["points"], place, "o", color=REFINED, markerfacecolor=fill)
        axes.axvline(0, color=FAINT, linewidth=1)
        axes.set_yticks(range(len(known)), [label(row) for row in reversed(known)], color=INK)
        axes.set_ylim(-0.6, len(known) - 0.4)
        axes.set_title(title, pad=8)
        axes.set_xlabel(f"points above {known[0]['than']}, 95 % over seeds")
        told = "; ".join(f"{label(row)} {row['points']:+.1f}" for row in known)
        svg = to_svg(figure, f"study-{title}", f"{title}: points above the base: {told}.")
    return Chart(svg, "Filled: the difference is shown after Holm's correction.")


def as_text(data: Mapping[str, Any]) -> str:
    """The tables and sentences as Markdown."""
    cells = data["cells"]
    lines = [f"# Study {data['study']}", "", f"{cells['done']} of {cells['all']} cells.", ""]
    lines += [f"- {claim['sentence']}" for claim in data["claims"]]
    for title, rows in tables(data["differences"]):
        lines += ["", f"## {title}", "", f"| | {' | '.join(_HEADS)} |", "|---" * 7 + "|"]
        lines += [f"| {label(row)} | {' | '.join(row_cells(row))} |" for row in rows]
    if cells["failed"]:
        lines += ["", "## Failed cells", ""]
        lines += [f"- {name}: {reason}" for name, reason in cells["failed"].items()]
    if cells["missing"]:
        lines += ["", f"Cells that are not there yet: {', '.join(cells['missing'])}."]
    return "\n".join(lines) + "\n"


_HEADS = ("base", "mean", "points", "95 % over seeds", "seeds", "p (Holm)")


def row_cells(row: Difference) -> list[str]:
    """A difference's numbers as texts, in the order of the tables' columns."""
    if row["points"] is None:
        return ["", "", "", "", "0", ""]
    spread = "" if row["low"] is None else f"{row['low']:+.1f} {row['high']:+.1f}"
    chance = "" if row["corrected"] is None else f"{row['corrected']:.2g}"
    return [
        f"{row['than mean']:.1f}",
        f"{row['better mean']:.1f}",
        f"{row['points']:+.1f}",
        spread,
        str(len(row["seeds"])),
        chance,
    ]
