"""What `sailvit data charts` and `sailvit data documents` share: writing a drawn source under a
progress bar.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from sailvit.cli.data.opening import recipe_line
from sailvit.cli.terminal.steps import count_columns
from sailvit.core.formatting import counted

Out = Annotated[
    Path,
    typer.Option("--out", help="Folder for images and rows; an unfinished one is continued."),
]
Count = Annotated[int, typer.Option("--count", min=1, help="Number of records.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of all random choices.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes that draw.")]


def write_drawn(
    name: str, options: dict[str, Any], kinds: str | None, out: Path, workers: int
) -> None:
    """Write the records of the format `name` to `out`, show how far it is, and say how to use
    them; `kinds` are names with commas between.
    """
    from rich.console import Console
    from rich.progress import Progress

    from sailvit.core.recipe import SourceConfig
    from sailvit.data.sources import FORMATS
    from sailvit.dataprep.rendering import render

    chosen = {"kinds": [kind.strip() for kind in kinds.split(",")]} if kinds else {}
    source = FORMATS[name](SourceConfig(format=name, options={**options, **chosen}), Path())
    console = Console(markup=False)
    begin, drawn = time.monotonic(), []
    with Progress(*count_columns(), console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(name, total=len(source))

        def count(records: int) -> None:
            """Move the bar."""
            drawn.append(records)
            progress.advance(bar, records)

        rows = render(source, out, name, workers=workers, report=count)
    # The first report counts what an earlier call had drawn.
    seconds, new = time.monotonic() - begin, sum(drawn[1:])
    speed = (
        f" ({new} drawn now, {1000 * seconds / new:.0f} ms each)" if new else " (all were there)"
    )
    console.print(
        f"{counted(len(source), 'record')} in {rows}{speed}", highlight=False, soft_wrap=True
    )
    console.print(recipe_line(name, "llava", rows), highlight=False, soft_wrap=True)
