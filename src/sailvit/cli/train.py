"""`sailvit train`: run a recipe's stages."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sailvit.core.errors import RunError
from sailvit.core.recipe import Recipe
from sailvit.core.run import RunFolder, read_json
from sailvit.recipes.loader import dump_recipe, load_recipe

if TYPE_CHECKING:
    from rich.console import Console

    from sailvit.models.build import Assembly

Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a setting, e.g. stages.0.optim.lr=1e-4; may be repeated."),
]


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    overrides: Set = None,
    run: Annotated[
        Path | None, typer.Option(help="Run folder; runs/<recipe name> when left out.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run at the step it stopped.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove a run that is already there.")
    ] = False,
) -> None:
    """Train a recipe's stages and save every part as a Hugging Face folder; torchrun spreads it over processes."""
    from rich.console import Console

    from sailvit.distributed.processes import agreed, joined, rank

    loaded = load_recipe(recipe, overrides or ())
    folder = RunFolder(
        run or (Path(recipe).parent if resume and _in_run(recipe) else Path("runs") / loaded.name)
    )
    with joined():
        console = Console(quiet=rank() != 0)
        if loaded.resume == "auto" and not (resume or overwrite):
            state = agreed(_state_of(folder, loaded))
            resume, overwrite = state == "interrupted", state == "not saved"
        if overwrite and not resume:
            _remove(folder)
        run_recipe(loaded, folder, console, resume=resume)
    last = loaded.stages[-1]
    console.print(
        f"Parts: {folder.stage(len(loaded.stages) - 1, last.name)}\nReport: {folder.report}",
        highlight=False,
    )


def run_recipe(
    recipe: Recipe, folder: RunFolder, console: Console, *, resume: bool = False
) -> Assembly:
    """Train `recipe` into `folder` with progress on `console`, and write the report; returns the trained model."""
    # Here, so that `sailvit --help` does not wait for torch.
    from sailvit.cli.progress import ProgressHook, announcement
    from sailvit.distributed.processes import rank
    from sailvit.models.quiet import quiet_libraries
    from sailvit.report.page import write_report
    from sailvit.training.trainer import Trainer

    quiet_libraries()
    text = dump_recipe(recipe)
    if resume:
        _refuse_other_recipe(folder, text)
    elif folder.manifest.exists():
        raise RunError(
            f"{folder.path} already holds a run; continue it with --resume, replace it with --overwrite, or give"
            " another folder with --run"
        )
    trainer = Trainer(
        recipe,
        folder,
        hooks=[ProgressHook(console)],
        announce=lambda line: console.print(announcement(line), highlight=False),
    )
    if rank() == 0 and not resume:
        _write_recipe(folder, text)
    assembly = trainer.run(resume=resume)
    if rank() == 0:
        write_report(folder)
    return assembly


def _write_recipe(folder: RunFolder, text: str) -> None:
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.recipe.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(
            f"{folder.path} cannot be written ({error.strerror}); make room or change its mode, or choose another"
            " folder with --run"
        ) from error


def _remove(folder: RunFolder) -> None:
    """Take away what another run left, once for all processes."""
    from sailvit.distributed.processes import meet, rank

    if rank() == 0:
        shutil.rmtree(folder.path, ignore_errors=True)
    meet()


def _state_of(folder: RunFolder, recipe: Recipe) -> str:
    """What `resume: auto` finds: nothing, a run without a state (so without anything to lose), or one with.

    A complete run ends the command at once: there is nothing left to do.
    """
    from sailvit.checkpoint.store import has_checkpoint

    if not folder.manifest.exists():
        return "none"
    if len(read_json(folder.manifest)["stages"]) == len(recipe.stages):
        typer.echo(f"{folder.path} is complete; nothing is left to do")
        raise typer.Exit
    return "interrupted" if has_checkpoint(folder.state) else "not saved"


def _in_run(recipe: str) -> bool:
    return RunFolder(Path(recipe).parent).recipe == Path(recipe)


def _refuse_other_recipe(folder: RunFolder, text: str) -> None:
    if not folder.recipe.exists():
        raise RunError(f"{folder.path} holds no run to resume; start it without --resume")
    before = folder.recipe.read_text(encoding="utf-8")
    if before != text:
        pairs = zip(before.splitlines(), text.splitlines(), strict=False)
        first = next(
            (f"{old.strip()!r} is now {new.strip()!r}" for old, new in pairs if old != new),
            "its length differs",
        )
        raise RunError(
            f"the recipe differs from the one {folder.path} was started with: {first}. A resumed run must follow"
            " the same recipe; start a new run with --run to follow another"
        )
