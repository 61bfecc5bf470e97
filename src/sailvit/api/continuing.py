"""What a start does with a run that is already in the folder, and the recipe that a run goes on
with.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sailvit.core.errors import RunError
from sailvit.core.ownership import is_run, manifest_of
from sailvit.core.recipe import Recipe
from sailvit.core.recipe.differences import differences, going_on, recorded
from sailvit.core.run import RunFolder
from sailvit.recipes.loader import load_recipe

if TYPE_CHECKING:
    # At run time this module stays light: the command line asks it before torch is imported.
    from sailvit.training.callbacks.claim import Wish


def wish_of(recipe: Recipe, *, resume: bool, overwrite: bool) -> Wish:
    """What the caller and the recipe want of the run folder."""
    if resume:
        return "resume"
    if overwrite:
        return "overwrite"
    return "auto" if recipe.resume == "auto" else "start"


def default_folder(given: object, recipe: Recipe, *, resume: bool) -> Path:
    """Where a run goes that names no folder; one that resumes by its own recipe.yaml stays
    there.
    """
    if resume and isinstance(given, str | Path) and _is_own_recipe(Path(given)):
        return Path(given).parent
    return Path("runs") / recipe.name


def _is_own_recipe(path: Path) -> bool:
    """Whether a recipe file is the one that a run keeps, not somebody's own of the same name."""
    return path.name == RunFolder(path.parent).recipe.name and is_run(path.parent)


def recipe_going_on(folder: RunFolder, recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe that a run goes on with, and notes about it.

    What the run was started with is what its manifest says: its recipe.yaml may have been
    edited since.

    Raises:
        RunError: it is another recipe than the run was started with.
    """
    place, known = str(folder.path), manifest_of(folder.path).get("recipe")
    if known is None:
        # A run that an earlier version has started: only its recipe.yaml is there.
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


def refuse_own_parents(recipe: Recipe, folder: RunFolder) -> None:
    """RunError when a recipe starts from what lies in the run that it would replace."""
    home = folder.path.resolve()
    if inside := [text for text in _texts(recipe.model_dump()) if _lies_in(text, home)]:
        raise RunError(
            f"the recipe reads {inside[0]}, which is part of the run in {folder.path} that it would"
            " replace; give another folder with --run"
        )


def _texts(value: Any) -> Iterator[str]:
    """Every string in nested mappings and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _lies_in(text: str, home: Path) -> bool:
    path = Path(text)
    return path.is_absolute() and path.resolve().is_relative_to(home)
