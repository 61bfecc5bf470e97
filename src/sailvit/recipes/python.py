"""Recipes from Python: from a `Recipe`, a mapping, a file, or the name of a shipped recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sailvit.core.recipe import Recipe
from sailvit.recipes.loader import checked_recipe, load_recipe
from sailvit.recipes.overrides import Overrides, overridden, read_overrides


def made_recipe(
    given: Recipe | Mapping[str, Any] | str | Path, overrides: Overrides = ()
) -> Recipe:
    """The recipe, with overrides applied; relative paths come out absolute.

    Relative paths in a file start at the file's folder, those of a recipe made in Python at the
    current folder.

    Raises:
        RecipeError: the recipe is not valid; the message names the wrong settings.
    """
    if isinstance(given, str | Path):
        return load_recipe(given, overrides)
    # What a recipe leaves out may depend on what is overridden, so defaults are not written out.
    document = given.model_dump(exclude_unset=True) if isinstance(given, Recipe) else dict(given)
    return checked_recipe(overridden(document, read_overrides(overrides)), "what was given", Path())
