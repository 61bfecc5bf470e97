"""Recipes from Python: from a `Recipe`, a mapping, a file, or the name of a shipped recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sailvit.core.recipe import Recipe
from sailvit.recipes.loader import checked_recipe, load_recipe
from sailvit.recipes.overrides import override, override_value


def made_recipe(
    given: Recipe | Mapping[str, Any] | str | Path,
    overrides: Mapping[str, Any] | Sequence[str] = (),
) -> Recipe:
    """The recipe, with overrides applied; relative paths come out absolute.

    Relative paths in a file start at the file's folder, those of a recipe made in Python at the
    current folder.

    Raises:
        RecipeError: the recipe is not valid; the message names the wrong settings.
    """
    if isinstance(given, str | Path):
        texts = () if isinstance(overrides, Mapping) else overrides
        recipe = load_recipe(given, texts)
        if not isinstance(overrides, Mapping):
            return recipe
        given = recipe
    document: Any = given.model_dump() if isinstance(given, Recipe) else dict(given)
    if isinstance(overrides, Mapping):
        for path, value in overrides.items():
            document = override_value(document, path, value)
    else:
        for setting in overrides:
            document = override(document, setting)
    return checked_recipe(document, "what was given", Path())
