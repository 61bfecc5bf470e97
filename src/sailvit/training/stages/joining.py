"""Recipes whose stages are scaled, or joined into one in which all parts train at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sailvit.core.errors import RecipeError
from sailvit.core.recipe import PARTS, Length, PortionConfig, Recipe, Stage, TrainConfig
from sailvit.training.stages.stage_loader import samples_of

Sizes = Callable[[Recipe], Mapping[str, int]]
"""Gives the number of records of every source of a recipe."""
Flops = Callable[[Recipe], float]
"""Gives the FLOPs that a recipe trains for."""

JOINT = "joint"
"""Name of the stage in which all parts train at once."""


def joined(recipe: Recipe, sizes: Sizes, flops: Flops | None = None) -> Recipe:
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
    made = with_stages(recipe, [like.model_copy(update=update)])
    if flops is None:
        return made
    # FLOPs are linear in samples.
    return with_stages(made, [scaled(made.stages[0], flops(recipe) / flops(made))])


def scaled(stage: Stage, factor: float) -> Stage:
    """`stage` with its length multiplied."""
    given = stage.length
    longer = {
        unit: max(1, round(value * factor))
        for unit, value in (("samples", given.samples), ("tokens", given.tokens))
        if value is not None
    }
    length = Length(**longer) if longer else Length(epochs=(given.epochs or 0) * factor)
    return stage.model_copy(update={"length": length})


def with_stages(recipe: Recipe, stages: list[Stage]) -> Recipe:
    """`recipe` with other stages."""
    return recipe.model_copy(update={"stages": stages})
