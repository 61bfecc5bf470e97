"""`sailvit recipe show|schema`, `sailvit formats`, `sailvit towers`: what a recipe says, may
say and may name.
"""

from __future__ import annotations

import json

import typer

from sailvit.cli.terminal.options import RecipeName, Set

recipe = typer.Typer(no_args_is_help=True, help="Show a recipe, or what recipes may hold.")


@recipe.callback()
def about() -> None:
    """Show a recipe, or what recipes may hold."""


@recipe.command()
def show(
    name: RecipeName,
    overrides: Set = None,
) -> None:
    """Print a recipe as it would run: with defaults, overrides and absolute paths."""
    from sailvit.recipes.loader import dump_recipe, load_recipe

    typer.echo(dump_recipe(load_recipe(name, overrides or ())), nl=False)


@recipe.command()
def schema() -> None:
    """Print the JSON schema of recipes; editors complete and check with it."""
    from sailvit.core.recipe import Recipe

    typer.echo(json.dumps(Recipe.model_json_schema(), indent=1))


def formats() -> None:
    """List the formats of data that a recipe can name, with an example of each."""
    from sailvit.data.sources import EXAMPLES

    for name, example in EXAMPLES.items():
        typer.echo(f"{name:14}{example}")
    typer.echo("\nThese stand under `sources` in a recipe; docs/formats.md lists their options.")


def towers() -> None:
    """List the tower families that are known by name, with a checkpoint of each."""
    from sailvit.models.towers.families import FAMILIES

    for name, family in FAMILIES.items():
        typer.echo(f"{name:24}{family.example}")
    typer.echo(
        "\nAny other ViT, by itself or inside a dual encoder or a multimodal checkpoint, is tried"
        "\nout on its own weights, and taken if it gives one token per patch (docs/towers.md)."
        "\nShipped: sailvit:world/tower."
    )
