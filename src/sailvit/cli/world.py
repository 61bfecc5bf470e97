"""`sailvit world`: the demo's own base checkpoints, made from nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from sailvit.cli.train import Set, run_recipe
from sailvit.core.run import RunFolder
from sailvit.core.seeding import derive_seed
from sailvit.recipes.loader import load_recipe

world = typer.Typer(no_args_is_help=True, help="The demo's world of rendered scenes.")


@world.callback()
def about() -> None:
    """The demo's world of rendered scenes."""


@world.command()
def pretrain(
    out: Annotated[Path, typer.Argument(help="Folder for the two checkpoints.")] = Path(
        "runs/world"
    ),
    overrides: Set = None,
) -> None:
    """Train the base language on texts and the base tower on coarse captions; about 20 minutes on 2 cores."""
    from rich.console import Console

    from sailvit.data.text_world import build_tokenizer
    from sailvit.data.world.drawing import SIDE
    from sailvit.models.quiet import quiet_libraries
    from sailvit.models.small import save_small_language, save_small_tower

    quiet_libraries()
    seed = 0
    begin = out / "random"
    save_small_tower(begin / "tower", size=SIDE, patch=8, seed=derive_seed(seed, "tower"))
    save_small_language(begin / "language", build_tokenizer(), seed=derive_seed(seed, "language"))
    parts = [f"model.tower={begin / 'tower'}", f"model.language={begin / 'language'}"]
    recipe = load_recipe("world-base", [*parts, *(overrides or ())])
    folder = RunFolder(out / "run")
    shutil.rmtree(folder.path, ignore_errors=True)
    run_recipe(recipe, folder, console := Console())
    last = folder.stage(len(recipe.stages) - 1, recipe.stages[-1].name)
    for part in ("tower", "language"):
        shutil.rmtree(out / part, ignore_errors=True)
        shutil.copytree(last / part, out / part)
    console.print(f"Checkpoints: {out / 'tower'} and {out / 'language'}", highlight=False)
