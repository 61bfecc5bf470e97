"""What precedes a step's first micro-batch, for objectives that span the whole step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import accumulate

import torch

from sailvit.core.batch import Batch
from sailvit.core.seeding import derive_seed
from sailvit.distributed.processes import lowest, rank
from sailvit.models.structure.mllm import MLLM
from sailvit.training.stages.stage_run import StageRun

BYTES_PER_FEATURE = 4
"""Bytes of one number of a tower's features; a norm gives them, in fp32 under autocast too."""


def prepare_step(run: StageRun, batches: Sequence[Batch]) -> list[Batch]:
    """Let objectives prepare for the step; returns the micro-batches with the kept features."""
    made, model = list(batches), run.model
    asked = [
        objective
        for objective in run.objectives.values()
        if run.stage.negatives == "step" or not objective.spans_step
    ]
    if len(made) > 1 and any(objective.spans_step for objective in asked):
        # Dropout has to be the same in both passes, else the gradient belongs to no loss.
        made = [dataclasses.replace(batch, seed=_seed(run, at)) for at, batch in enumerate(made)]
        made = _with_features(model, made, run.recipe.parallel.kept_features * 2**30)
    for objective in asked:
        objective.prepare(model, made)
    return made


def _seed(run: StageRun, place: int) -> int:
    """Seed of a micro-batch: each has its own dropout, and a resumed run draws the same."""
    return derive_seed(run.recipe.seed, "dropout", run.index, run.step, rank(), place)


@torch.no_grad()
def _with_features(model: MLLM, batches: list[Batch], room: float) -> list[Batch]:
    """The micro-batches; the first have a frozen tower's features, up to `room` bytes."""
    if any(parameter.requires_grad for parameter in model.tower.parameters()):
        return batches
    tile = BYTES_PER_FEATURE * model.tile_patches * model.tower.width
    # A micro-batch without tiles may run a blank one, which then is kept too.
    sizes = accumulate(max(1, len(batch.tiles)) * tile for batch in batches)
    # The same number on every process, as a pass of a sharded tower has collectives.
    kept = lowest(sum(size <= room for size in sizes), batches[0].tokens.device)
    return [
        dataclasses.replace(batch, features=model.features(batch.tiles, batch.grids))
        for batch in batches[:kept]
    ] + batches[kept:]
