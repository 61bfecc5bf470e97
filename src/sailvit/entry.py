"""`sailvit.train` as a person calls it: the API's, with its progress on the terminal or in the
notebook.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from sailvit.api.running import Run
from sailvit.api.running import train as train_recipe
from sailvit.cli.screen import ConsoleScreen
from sailvit.core.recipe import Recipe
from sailvit.training.stages.callback import Callback


def train(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    *,
    run: str | Path | None = None,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Run:
    """Train a recipe's stages and save every part as a Hugging Face folder.

    An interrupt (Ctrl-C, the notebook's stop button) ends training after the step in progress,
    with the state saved. Afterwards signal handlers, random generators and what libraries say
    are as they were before.

    Args:
        recipe: a recipe, the mapping that it is made from, its file, or the name of a shipped
            one.
        run: the run folder; None: `runs/<recipe name>`.
        overrides: settings by dotted path, `{"stages.0.optim.lr": 1e-4}`, or as `--set` takes
            them.
        callbacks: called at every stage's start and end and after every step.
        resume: go on with the run that is in the folder.
        overwrite: replace the run that is in the folder once the new one has begun.
        quiet: show nothing.

    Raises:
        InterruptedRunError: it was interrupted; the state is saved, `resume=True` goes on from
            it.
        SailvitError: the recipe, its data or its models cannot be used; the message says why.
    """
    return train_recipe(
        recipe,
        run=run,
        overrides=overrides,
        callbacks=callbacks,
        resume=resume,
        overwrite=overwrite,
        screen=None if quiet else ConsoleScreen(Console()),
    )
