"""What a study's steps and levels make of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sailvit.core.errors import RecipeError
from sailvit.core.recipe import PARTS, Length, PortionConfig, Recipe, Stage, TrainConfig
from sailvit.core.study.definition import StepChange
from sailvit.recipes.loader import load_recipe
from sailvit.recipes.python import made_recipe
from sailvit.training.stages.stage_loader import samples_of

Sizes = Callable[[Recipe], Mapping[str, int]]
"""Gives the number of records of every source of a recipe."""
Flops = Callable[[Recipe], float]
"""Gives the FLOPs that a recipe trains for."""

JOINT = "joint"
"""Name of the stage in which all parts train at once."""


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
        recipe = _joined(recipe, sizes, flops if change.joint == "compute" else None)
    if change.scale is not None:
        factor = change.scale
        recipe = _with_stages(recipe, [_scaled(stage, factor) for stage in recipe.stages])
    return made_recipe(recipe, settings) if settings else recipe


def _only(recipe: Recipe, names: list[str]) -> Recipe:
    known = {stage.name: stage for stage in recipe.stages}
    if missing := [name for name in names if name not in known]:
        raise RecipeError(
            f"recipe {recipe.name} has no stage {missing[0]!r}, which the study keeps;"
            f" it has {', '.join(known)}"
        )
    return _with_stages(recipe, [known[name] for name in names])


def _joined(recipe: Recipe, sizes: Sizes, flops: Flops | None) -> Recipe:
    """`recipe` as one stage in which all parts train; for as many FLOPs where `flops` is given,
    else on as many samples.
    """
    known = sizes(recipe)
    mixture: dict[str, float] = {}
    total = 0
    for stage in recipe.stages:
        samples = samples_of(stage, known)
        if samples is None:
            raise RecipeError(
                f"stage {stage.name} of {recipe.name} is as long as its tokens; to train all parts"
                " at once over the stages' mixtures, give lengths in samples or epochs"
            )
        shares = stage.shares(known)
        for name, share in shares.items():
            # A share counts by its stage's length, so that a source is drawn from as often as stage
            # by stage.
            mixture[name] = mixture.get(name, 0.0) + share / sum(shares.values()) * samples
        total += samples
    # Of the first stage with the tower, as its rate is one that the tower was given.
    like = next((stage for stage in recipe.stages if stage.share("tower")), recipe.stages[-1])
    update = {
        "name": JOINT,
        "train": {part: TrainConfig() for part in PARTS},
        "data": {name: PortionConfig(share=share) for name, share in mixture.items()},
        "length": Length(samples=total),
        # The stages that it continued from are no longer there.
        "start_from": {},
    }
    made = _with_stages(recipe, [like.model_copy(update=update)])
    if flops is None:
        return made
    # FLOPs are linear in samples.
    return _with_stages(made, [_scaled(made.stages[0], flops(recipe) / flops(made))])


def _scaled(stage: Stage, factor: float) -> Stage:
    given = stage.length
    longer = {
        unit: max(1, round(value * factor))
        for unit, value in (("samples", given.samples), ("tokens", given.tokens))
        if value is not None
    }
    length = Length(**longer) if longer else Length(epochs=(given.epochs or 0) * factor)
    return stage.model_copy(update={"length": length})


def _with_stages(recipe: Recipe, stages: list[Stage]) -> Recipe:
    return recipe.model_copy(update={"stages": stages})
