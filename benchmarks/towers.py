"""What every source of a tower can do: the table of docs/towers.md.

python benchmarks/towers.py [SOURCE ...]     (names: lines of those alone, nothing is written)
"""

from __future__ import annotations

import logging
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [
    str(ROOT / path) for path in ("tests", "tests/data", "tests/models", "tests/models/towers")
]

import tower_cells  # noqa: E402 - needs the path

from sailvit.core.errors import SailvitError  # noqa: E402
from sailvit.models.guards.errors import FOREIGN  # noqa: E402
from sailvit.models.loading.quiet import quiet_libraries  # noqa: E402
from tiny_sources import ALONE, DUAL, MULTIMODAL, REFUSED, save_source  # noqa: E402

PAGE = ROOT / "docs" / "towers.md"
SECONDS = 120
BEGIN, END = "<!-- table: benchmarks/towers.py -->", "<!-- end of table -->"
HEAD = """| source | grid | patches in order | recompute | compile | shard | freeze | stages | saved for | reload |
|---|---|---|---|---|---|---|---|---|---|
"""
KINDS = (("by itself", ALONE), ("dual encoders", DUAL), ("inside a multimodal model", MULTIMODAL))


def row(source: str) -> str:
    """The table's line of a source."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "source"
        save_source(source, folder)
        if source in REFUSED:
            return f"- {source}: {_refusal(folder)}"
        cells = [_cell(column, folder) for column in tower_cells.COLUMNS]
        try:
            cells += tower_cells.stages(folder)
        except (*FOREIGN, SailvitError) as error:
            cells += [_short(error), "", "", ""]
    return f"| {source} | {' | '.join(cells)} |"


def _cell(column: str, folder: Path) -> str:
    try:
        return tower_cells.COLUMNS[column](folder)
    except (*FOREIGN, SailvitError) as error:
        return f"no: {_short(error)}"


def _refusal(folder: Path) -> str:
    try:
        tower_cells.loaded(folder)
    except SailvitError as error:
        return str(error).replace(f"{folder}", "...").replace("the tower '...' is ", "")
    return "nothing"


def _short(text: object) -> str:
    line = " ".join(str(text).split()).replace("|", "/")
    return line if len(line) <= 110 else line[:107] + "..."


def _late(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise TimeoutError(f"took more than {SECONDS} s")


def main() -> None:
    """Write the table into the page, or print the lines of the sources that are named."""
    quiet_libraries()
    logging.disable(logging.WARNING)
    signal.signal(signal.SIGALRM, _late)
    asked = sys.argv[1:]
    lines = []
    for kind, sources in (*KINDS, ("refused", list(REFUSED))):
        chosen = [source for source in sources if not asked or source in asked]
        refused = kind == "refused"
        lines.append("\nRefused:\n" if refused else f"| **{kind}** |" + " |" * 9)
        for source in chosen:
            signal.alarm(SECONDS)
            lines.append(row(source))
            signal.alarm(0)
            print(lines[-1], flush=True)
    if not asked:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        table = f"{BEGIN}\n{HEAD}" + "\n".join(lines) + f"\n{END}"
        PAGE.write_text(before + table + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
