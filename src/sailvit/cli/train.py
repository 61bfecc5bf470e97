"""`sailvit train`: run a recipe's stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sailvit.core.errors import RunError
from sailvit.core.ownership import is_run, manifest_of
from sailvit.core.recipe import Recipe
from sailvit.core.recipe.differences import differences, going_on, recorded
from sailvit.core.run import RunFolder
from sailvit.recipes.loader import dump_recipe, load_recipe

if TYPE_CHECKING:
    from rich.console import Console

    from sailvit.models.loading.build import ModelBundle
    from sailvit.training.callbacks.claim import Claim, Wish
    from sailvit.training.trainer import Trainer

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
        bool,
        typer.Option(
            "--overwrite", help="Replace a run that is already there, once the new one has begun."
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show every proof of training as a table.")
    ] = False,
) -> None:
    """Train a recipe's stages and save every part as a Hugging Face folder; torchrun spreads it over processes."""
    from rich.console import Console

    from sailvit.distributed.processes import process_group, rank
    from sailvit.training.callbacks.claim import claimed

    loaded = load_recipe(recipe, overrides or ())
    folder = RunFolder(
        run or (Path(recipe).parent if resume and _in_run(recipe) else Path("runs") / loaded.name)
    )
    with process_group():
        console = Console(quiet=rank() != 0)
        if resume and not is_run(folder.path):
            raise RunError(f"{folder.path} holds no run to resume; start it without --resume")
        wish = wish_of(loaded, resume=resume, overwrite=overwrite)
        with claimed(folder, wish, len(loaded.stages)) as claim:
            if claim.deed == "nothing":
                console.print(f"{folder.path} is complete; nothing is left to do", highlight=False)
                return
            run_recipe(loaded, folder, console, claim=claim, verbose=verbose)
    last = loaded.stages[-1]
    console.print(
        f"Parts: {folder.stage(len(loaded.stages) - 1, last.name)}\nReport: {folder.report}",
        highlight=False,
    )


def wish_of(recipe: Recipe, *, resume: bool, overwrite: bool) -> Wish:
    """What the command line and the recipe want of the run folder."""
    if resume:
        return "resume"
    if overwrite:
        return "overwrite"
    return "auto" if recipe.resume == "auto" else "start"


def run_recipe(
    recipe: Recipe,
    folder: RunFolder,
    console: Console,
    *,
    claim: Claim | None = None,
    verbose: bool = False,
) -> ModelBundle:
    """Train `recipe` into `folder` with progress on `console`, and write the report; returns the trained model.

    `claim` is the hold on the folder where the caller has it; else a new run is started there.
    `verbose` shows every proof as a table.
    """
    # Here, so that `sailvit --help` does not wait for torch.
    from sailvit.cli.progress import announcement
    from sailvit.distributed.processes import rank
    from sailvit.models.loading.quiet import quiet_libraries
    from sailvit.report.page import write_report
    from sailvit.training.callbacks.claim import claimed

    if claim is None:
        with claimed(folder, "start", len(recipe.stages)) as held:
            return run_recipe(recipe, folder, console, claim=held, verbose=verbose)
    quiet_libraries()

    def announce(line: dict[str, Any]) -> None:
        """Print what the run has to say."""
        console.print(announcement(line, verbose=verbose), highlight=False)

    resume = claim.deed == "resume"
    notes = list(claim.notes)
    if resume:
        recipe, edited = _going_on(folder, recipe)
        notes += edited
    for note in notes:
        announce({"note": note})
    if claim.deed == "overwrite":
        _refuse_own_parents(recipe, folder)
    # Before anything is built, so that nothing of the new run is read from the old one; it is put back on failure.
    claim.begin()
    trainer = _made_trainer(recipe, folder, console, announce)
    if rank() == 0:
        _write_recipe(folder, dump_recipe(recipe))
    bundle = trainer.run(resume=resume, claim=claim)
    if rank() == 0:
        write_report(folder)
    return bundle


def _made_trainer(
    recipe: Recipe, folder: RunFolder, console: Console, announce: Callable[[dict[str, Any]], None]
) -> Trainer:
    """The trainer; says at once what is loaded and where it writes, and how far measuring is."""
    from sailvit.cli.progress import ProgressCallback, measuring, opening
    from sailvit.training.trainer import Trainer

    console.print(opening(recipe, folder.path), highlight=False, soft_wrap=True)
    callbacks = [ProgressCallback(console)]
    with measuring(console) as measured:
        return Trainer(recipe, folder, callbacks=callbacks, announce=announce, progress=measured)


def _refuse_own_parents(recipe: Recipe, folder: RunFolder) -> None:
    """RunError when a recipe starts from what lies in the run that it would replace."""
    home = folder.path.resolve()
    if inside := [text for text in _texts(recipe.model_dump()) if _lies_in(text, home)]:
        raise RunError(
            f"the recipe reads {inside[0]}, which is part of the run in {folder.path} that it would"
            " replace; give another folder with --run"
        )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _lies_in(text: str, home: Path) -> bool:
    path = Path(text)
    return path.is_absolute() and path.resolve().is_relative_to(home)


def _write_recipe(folder: RunFolder, text: str) -> None:
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        draft = folder.recipe.with_name(folder.recipe.name + ".part")
        draft.write_text(text, encoding="utf-8")
        draft.replace(folder.recipe)
    except OSError as error:
        raise RunError(
            f"{folder.path} cannot be written ({error.strerror}); make room or change its mode, or choose another"
            " folder with --run"
        ) from error


def _in_run(recipe: str) -> bool:
    """Whether a recipe file is the one that a run keeps, and not somebody's own of the same name."""
    path = Path(recipe)
    return path.name == RunFolder(path.parent).recipe.name and is_run(path.parent)


def _going_on(folder: RunFolder, recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe that a run goes on with, and notes; RunError when that is another one than it was started with.

    What it was started with is what its manifest says: its recipe.yaml may have been edited since.
    """
    place, known = str(folder.path), manifest_of(folder.path).get("recipe")
    if known is None:
        # Of a run that an earlier version has started.
        if not folder.recipe.is_file():
            return recipe, []
        return going_on(load_recipe(folder.recipe), recipe, place)[0], []
    started = recorded(known, place)
    effective, _ = going_on(started, recipe, place)
    edited = differences(started, load_recipe(folder.recipe)) if folder.recipe.is_file() else []
    if lost := [found for found in edited if not found.is_free]:
        said = "; ".join(map(str, lost))
        note = f"{folder.recipe} was edited ({said}); it is written again as the run is"
        return effective, [note]
    return effective, []
