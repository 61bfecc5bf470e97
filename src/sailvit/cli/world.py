"""`sailvit world`: the demo's own base checkpoints, made from nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from sailvit.cli.terminal.options import Set
from sailvit.core.errors import RunError
from sailvit.core.ownership import WORLD, is_run, others, strangers
from sailvit.core.run import RunFolder, write_json
from sailvit.core.seeding import derive_seed
from sailvit.core.study.definition import NewLanguage, NewTower
from sailvit.core.version import __version__
from sailvit.recipes.loader import load_recipe

world = typer.Typer(no_args_is_help=True, help="The demo's world of rendered scenes.")


@world.callback()
def about() -> None:
    """The demo's world of rendered scenes."""


@world.command()
def pretrain(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder for the two checkpoints.")
    ] = Path("runs/world"),
    overrides: Set = None,
) -> None:
    """Train the demo's base language and base tower; about half an hour on 2 cores."""
    from rich.console import Console

    from sailvit.api.running import train_claimed
    from sailvit.cli.screen import ConsoleScreen
    from sailvit.models.loading.quiet import quiet_libraries
    from sailvit.models.loading.small import save_small_language, save_small_tower
    from sailvit.models.loading.world_tokenizer import build_tokenizer
    from sailvit.synthetic.world.rendering import SIDE
    from sailvit.training.callbacks.claim import claimed

    quiet_libraries()
    _claim_world(out)
    # No option: the shipped checkpoints are what this seed makes.
    seed = 0
    begin = out / "random"
    tower, language = NewTower(family="siglip", size=SIDE), NewLanguage(family="llama")
    save_small_tower(begin / "tower", tower, seed=derive_seed(seed, "tower"))
    words = build_tokenizer()
    save_small_language(begin / "language", language, words, seed=derive_seed(seed, "language"))
    parts = [f"model.tower={begin / 'tower'}", f"model.language={begin / 'language'}"]
    recipe = load_recipe("world-base", [*parts, *(overrides or ())])
    folder, console = RunFolder(out / "run"), Console()
    with claimed(folder, "overwrite", len(recipe.stages)) as claim:
        train_claimed(recipe, folder, claim, ConsoleScreen(console))
    last = folder.stage(len(recipe.stages) - 1, recipe.stages[-1].name)
    for part in ("tower", "language"):
        _replace(out / part, last / part)
    console.print(
        f"Checkpoints: {out / 'tower'} and {out / 'language'}", highlight=False, markup=False
    )


def _claim_world(out: Path) -> None:
    """Mark a folder as one of this command; RunError for one that holds anything else."""
    mark = out / "world.json"
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; give a folder")
    ours = is_run(out / "run") or mark.is_file()
    found = [] if not out.exists() else strangers(out, WORLD) if ours else others(out)
    if found:
        raise RunError(
            f"{out} holds {', '.join(found[:5])}, which this command did not write, so nothing is"
            " written there; give an empty or a new folder"
        )
    try:
        write_json(mark, {"sailvit": __version__, "command": "world pretrain"})
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror}); choose another") from error


def _replace(old: Path, new: Path) -> None:
    """Put a copy of `new` in the place of `old`, which goes when the copy is whole."""
    draft, gone = old.with_name(f"{old.name}.part"), old.with_name(f"{old.name}.old")
    # A call that was killed in between leaves one of these behind.
    for path in (draft, gone):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(new, draft)
    if old.exists():
        old.rename(gone)
    # Two renames: at no time is there half a checkpoint under the name that is read.
    draft.rename(old)
    shutil.rmtree(gone, ignore_errors=True)
