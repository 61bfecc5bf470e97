"""What target training on open data costs, by `sailvit plan`, as the table of docs/target.md.

python benchmarks/target_table.py docs/target.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from sailvit.core.formatting import duration, short, size
from sailvit.preflight.plan import plan
from sailvit.recipes.loader import load_recipe

RECIPES = {"target-1-gpu": 1, "target": 8, "target-64-gpus": 64}
"""Shipped recipes, and the devices that each is meant for."""
PEAK = 989e12
"""FLOP/s of an H100 in bf16 by its data sheet, without sparsity."""
MFU = 0.4
"""Share of the peak that training reaches, as `sailvit plan` takes it."""
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->"
HEADS = ("recipe", "GPUs", "stage", "samples", "steps", "FLOPs", "memory, unsharded", "time")


def rows() -> Iterator[tuple[str, ...]]:
    """The cells of every row."""
    for name, devices in RECIPES.items():
        # As on a GPU, whatever machine this is.
        made = plan(load_recipe(name, ["precision=bf16"]))
        speed = PEAK * MFU * devices
        for stage in made.stages:
            cells = (short(stage.samples), f"{stage.steps:,}", f"{stage.flops:.1e}")
            memory = size(stage.memory.total)
            time = duration(stage.seconds(speed))
            yield name, str(devices), stage.name, *cells, memory, time
        whole = made.flops
        assert whole is not None
        yield name, str(devices), "all", "", "", f"{whole:.1e}", "", duration(whole / speed)


def table() -> str:
    """The table in Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (HEADS, *rows())]
    lines.insert(1, "|---" * len(HEADS) + "|")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table into the page."""
    page = Path(sys.argv[1])
    start, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(start + BEGIN + table() + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
