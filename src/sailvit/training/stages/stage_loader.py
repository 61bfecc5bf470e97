"""From a stage's settings to the loader's config."""

from __future__ import annotations

from collections.abc import Mapping

from sailvit.core.recipe import Recipe, Stage
from sailvit.data.sampling.loader_config import LoaderConfig
from sailvit.distributed.processes import rank, world


def make_loader_config(recipe: Recipe, index: int, sizes: Mapping[str, int]) -> LoaderConfig:
    """The loader config of stage `index`, given the number of records in each source."""
    stage = recipe.stages[index]
    shares = stage.shares(sizes)
    return LoaderConfig(
        name=stage.name,
        seed=recipe.seed,
        shares=shares,
        sequence=recipe.sequence,
        global_batch=stage.global_batch,
        micro_batch=stage.micro_batch,
        samples=samples_of(stage, sizes),
        caps=stage.caps(sizes),
        tiles=stage.pack_tiles,
        window=stage.window,
        quarantine=recipe.quarantine,
        workers=recipe.workers,
        rank=rank(),
        world=world(),
    )


def samples_of(stage: Stage, sizes: Mapping[str, int]) -> int | None:
    """Records that the stage draws; None when its length is given in tokens.

    That is its length or, where every source has a limit of epochs and they end earlier, what
    the sources have: so the schedule ends with the data.
    """
    asked = stage.length.samples
    if stage.length.epochs is not None:
        asked = max(1, round(stage.length.epochs * sum(sizes[name] for name in stage.data)))
    has = supply(stage, sizes)
    return asked if asked is None or has is None else min(asked, has)


def supply(stage: Stage, sizes: Mapping[str, int]) -> int | None:
    """Records that the stage's sources give in all; None when one of them has no limit."""
    caps = stage.caps(sizes)
    return sum(caps.values()) if caps.keys() == set(stage.data) else None


def target_of(stage: Stage, loader_config: LoaderConfig) -> float:
    """The stage's length in samples or, where it is given in tokens, in tokens."""
    target = stage.length.tokens if stage.length.tokens is not None else loader_config.samples
    assert target is not None
    return float(target)
