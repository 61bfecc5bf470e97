"""What happens to a run that is already in the folder, and the recipe that a resumed run
uses.
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
    # Not at run time: the command line calls this module before it imports torch.
    from sailvit.training.callbacks.claim import Wish


def wish_of(recipe: Recipe, *, resume: bool, overwrite: bool) -> Wish:
    """What to do with the run folder, by the caller's arguments and the recipe."""
    if resume:
        return "resume"
    if overwrite:
        return "overwrite"
    return "auto" if recipe.resume == "auto" else "start"


def default_folder(given: object, recipe: Recipe, *, resume: bool) -> Path:
    """The run folder when the caller names none: `runs/<name>`, or, where a run is resumed by
    its own recipe.yaml, the folder of that file.
    """
    if resume and isinstance(given, str | Path) and _is_own_recipe(Path(given)):
        return Path(given).parent
    return Path("runs") / recipe.name


def _is_own_recipe(path: Path) -> bool:
    """Whether a run wrote this recipe file; a user's own file may have the same name."""
    return path.name == RunFolder(path.parent).recipe.name and is_run(path.parent)


def recipe_going_on(folder: RunFolder, recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe that a resumed run uses, and notes for the user.

    The manifest holds the recipe that the run was started with; recipe.yaml may have been
    edited since.

    Raises:
        RunError: `recipe` differs from that in settings that change what is learnt.
    """
    place, known = str(folder.path), manifest_of(folder.path).get("recipe")
    if known is None:
        # Earlier versions kept the recipe in recipe.yaml alone.
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
    """RunError when a recipe reads a file or folder of the run that it would replace."""
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
