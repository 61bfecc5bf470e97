"""The table of docs/probes.md, from what `benchmarks/probe.py towers` found.

    python benchmarks/probe_table.py docs/probes.md

It needs benchmarks/results/probe.json alone: the probes take half an hour, the table no time, and a page that is
written from the file cannot say anything else than the file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- table: benchmarks/probe_table.py -->\n", "<!-- end of table -->"
FOUND = Path(__file__).parent / "results" / "probe.json"
"""What was found."""


def table(found: Mapping[str, Any]) -> str:
    """A row for every probe, set and metric: each tower's number at its last layer with the word of
    the comparison, and the number at the best layer.
    """
    names = list(dict.fromkeys(row["tower"] for row in found["rows"]))
    keys = dict.fromkeys((row["set"], row["probe"], row["metric"]) for row in found["rows"])
    words = {
        (each["other"], each["set"], each["probe"], each["metric"]): each["word"]
        for each in found["differences"]
    }
    lines = [
        f"| data | probe | {' | '.join(names)} | best layer's ({', '.join(names)}) |",
        "|---" * (3 + len(names)) + "|",
    ]
    for key in keys:
        layers = {name: _layers(found, name, key) for name in names}
        cells = [_cell(layers[name], words.get((name, *key))) for name in names]
        best = [_best(layers[name], found["best layers"][name].get(key[1])) for name in names]
        last = ", ".join(best) if any(cell != "-" for cell in best) else "-"
        lines.append(f"| {key[0]} | {key[1]} {key[2]} | {' | '.join(cells)} | {last} |")
    return "\n".join(lines) + "\n"


def write_table(page: Path, found: Mapping[str, Any]) -> None:
    """Write the table between its marks."""
    start, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(start + BEGIN + table(found) + END + rest.split(END)[1], encoding="utf-8")


def _layers(
    found: Mapping[str, Any], name: str, key: tuple[str, str, str]
) -> dict[int, Mapping[str, Any]]:
    return {
        row["layer"]: row
        for row in found["rows"]
        if row["tower"] == name and (row["set"], row["probe"], row["metric"]) == key
    }


def _cell(layers: Mapping[int, Mapping[str, Any]], word: str | None) -> str:
    if not layers:
        return "-"
    row = layers[max(layers)]
    number = f"{row['value']:.1f} ±{(row['high'] - row['low']) / 2:.1f}"
    return number if word in (None, "does not differ") else f"**{number}** ({word})"


def _best(layers: Mapping[int, Mapping[str, Any]], layer: int | None) -> str:
    # What a whole model makes of its layers, as retrieval is, has none to choose.
    return f"{layers[layer]['value']:.1f} at {layer}" if layer in layers else "-"


if __name__ == "__main__":
    write_table(Path(sys.argv[1]), json.loads(FOUND.read_text(encoding="utf-8")))
