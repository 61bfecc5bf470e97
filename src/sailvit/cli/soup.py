"""`sailvit soup`: the mean of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def soup(
    models: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of towers or other models, or of three parts; two or more.",
            metavar="A B ...",
        ),
    ],
    out: Annotated[Path, typer.Option(help="New folder to write.")],
    limit: Annotated[
        float,
        typer.Option(min=0, help="Largest distance that is averaged, as a share of the norm."),
    ] = 0.5,
) -> None:
    """Average checkpoints of one model; such as lie too far apart are refused."""
    # torch takes seconds to import; `sailvit --help` should not wait for it.
    from sailvit.interop.soup import make_soup

    made = make_soup(models, out, limit=limit)
    for (one, other), apart in made.distances.items():
        typer.echo(f"{models[one]} and {models[other]}: {apart:.2g} of their norm apart")
    typer.echo(f"{out}: the mean of {len(models)} checkpoints.")
