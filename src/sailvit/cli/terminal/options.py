"""Options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

RecipeName = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe."),
]
"""The recipe that a command reads."""

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Override a setting, e.g. stages.0.optim.lr=1e-4; may be repeated.",
    ),
]
"""Values of a recipe given on the command line."""
