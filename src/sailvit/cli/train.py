"""`sailvit train`: run a recipe's stages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sailvit.cli.terminal.options import RecipeName, Set
from sailvit.core.run import RunFolder
from sailvit.recipes.loader import load_recipe


def train(
    recipe: RecipeName,
    overrides: Set = None,
    run: Annotated[
        Path | None, typer.Option(help="Run folder; runs/<recipe name> when left out.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run at the step it stopped.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace a run that is already there, once the new one has begun."
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show every proof of training as a table.")
    ] = False,
) -> None:
    """Train the stages of a recipe and save every part as a Hugging Face folder."""
    from rich.console import Console

    from sailvit.api.continuing import default_folder

    # Before torch is imported, so that a mistake in the recipe shows at once.
    loaded = load_recipe(recipe, overrides or ())
    folder = RunFolder(run or default_folder(recipe, loaded, resume=resume))

    from sailvit.api.running import train as train_recipe
    from sailvit.cli.screen import ConsoleScreen

    console = Console()
    screen = ConsoleScreen(console, verbose=verbose)
    done = train_recipe(loaded, run=folder.path, resume=resume, overwrite=overwrite, screen=screen)
    if done.trained and int(os.environ.get("RANK", "0")) == 0:
        last = loaded.stages[-1]
        console.print(
            f"Parts: {folder.stage(len(loaded.stages) - 1, last.name)}\nReport: {folder.report}",
            highlight=False,
            markup=False,
        )
