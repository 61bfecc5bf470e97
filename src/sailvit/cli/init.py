"""`sailvit init`: a first recipe for a tower, a language and data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sailvit.core.errors import RecipeError
from sailvit.core.recipe import ConnectorKind


def init(
    tower: Annotated[
        str, typer.Option(metavar="ID", help="Tower to refine: a hub id or a folder.")
    ],
    language: Annotated[
        str, typer.Option(metavar="ID", help="Language to train it against: a hub id or a folder.")
    ],
    data: Annotated[
        list[str],
        typer.Option(metavar="PATH", help="File, folder, glob or URL of records; may be repeated."),
    ],
    images: Annotated[
        Path | None,
        typer.Option(help="Folder that image paths start from, where it is not their file's own."),
    ] = None,
    connector: Annotated[
        ConnectorKind, typer.Option(help="Kind of the connector between them.")
    ] = "merge_mlp",
    out: Annotated[Path, typer.Option(help="Where the recipe is written.")] = Path("recipe.yaml"),
) -> None:
    """Write a commented recipe in three stages, with sizes that fit the data and this machine."""
    if out.exists():
        raise RecipeError(f"{out} exists and is not overwritten; name another file with --out")
    # torch and transformers take seconds to import; `sailvit --help` should not wait for them.
    from sailvit.api.first_recipe import first_recipe

    folder = None if images is None else str(images)
    text = first_recipe(tower, language, data, name=out.stem, images=folder, connector=connector)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Not a check and then a write: what appeared meanwhile is not overwritten either.
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise RecipeError(f"{out} appeared meanwhile and is not overwritten") from error
    typer.echo(f"{out} is written. What it would do and cost: sailvit plan {out}")
