"""`sailvit data index DIR`: an index of tars or Parquet files where they are, or of prepared
shards for a recipe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sailvit.cli.data.opening import Workers
from sailvit.cli.data.prepare import summary


def index(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of tars or Parquet files.")],
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="Recipe whose tokens and tiles are counted; left out, training counts them."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the index; left out, it goes beside the shards.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder that image paths in Parquet rows start from; else the shard's own."
        ),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="Kind of the records whose row has none.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Read all shards again, changed or not.")
    ] = False,
    workers: Workers = 0,
) -> None:
    """Index existing shards without rewriting them; repeated, only what changed is read."""
    from rich.console import Console

    from sailvit.cli.data.opening import processor_of
    from sailvit.cli.terminal.steps import steps_shown
    from sailvit.dataprep.prepare.indexing import index as write
    from sailvit.dataprep.prepare.indexing import index_config

    console = Console()
    config = index_config(folder, out=out, images=images, kind=kind)
    with steps_shown(console) as shown:
        manifest = write(
            config,
            processor=processor_of(recipe),
            workers=workers,
            force=force,
            progress=lambda done, total: shown("shards", done, total),
        )
    for line in summary(manifest, config.out):
        console.print(line, highlight=False, soft_wrap=True)
