"""What a study's steps and levels make of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sailvit.core.errors import RecipeError
from sailvit.core.recipe import Recipe
from sailvit.core.study.definition import StepChange
from sailvit.recipes.loader import load_recipe
from sailvit.recipes.python import made_recipe
from sailvit.training.stages.joining import Flops, Sizes, joined, scaled, with_stages


def changed(
    recipe: Recipe | None,
    change: StepChange,
    settings: Mapping[str, Any],
    *,
    sizes: Sizes,
    flops: Flops,
) -> Recipe:
    """`recipe` after a change, whose `set` is given as `settings`, with references resolved."""
    # First of all: a level that gives another recipe replaces what the factors before it made.
    if change.recipe is not None:
        recipe = load_recipe(change.recipe)
    assert recipe is not None
    if change.stages is not None:
        recipe = _only(recipe, change.stages)
    if change.joint is not None:
        recipe = joined(recipe, sizes, flops if change.joint == "compute" else None)
    if change.scale is not None:
        factor = change.scale
        recipe = with_stages(recipe, [scaled(stage, factor) for stage in recipe.stages])
    return made_recipe(recipe, settings) if settings else recipe


def _only(recipe: Recipe, names: list[str]) -> Recipe:
    known = {stage.name: stage for stage in recipe.stages}
    if missing := [name for name in names if name not in known]:
        raise RecipeError(
            f"recipe {recipe.name} has no stage {missing[0]!r}, which the study keeps;"
            f" it has {', '.join(known)}"
        )
    return with_stages(recipe, [known[name] for name in names])
