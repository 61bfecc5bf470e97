"""From a stage's settings to the loader's config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sailvit.core.recipe import Recipe, Stage
from sailvit.data.lengths.costs import Costs
from sailvit.data.sampling.draws import Draws
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
    asked, has = _samples_asked(stage, sizes), supply(stage, sizes)
    return asked if asked is None or has is None else min(asked, has)


def _samples_asked(stage: Stage, sizes: Mapping[str, int]) -> int | None:
    if stage.length.epochs is None:
        return stage.length.samples
    return max(1, round(stage.length.epochs * sum(sizes[name] for name in stage.data)))


def supply(stage: Stage, sizes: Mapping[str, int]) -> int | None:
    """Records that the stage's sources give in all; None when one of them has no limit."""
    caps = stage.caps(sizes)
    return sum(caps.values()) if caps.keys() == set(stage.data) else None


def token_supply(
    stage: Stage, loader_config: LoaderConfig, costs: Mapping[str, Costs]
) -> int | None:
    """Tokens that the stage's sources give in all, as planned from their records' `costs`; None
    when one of them has no limit, or the length is not in tokens.
    """
    if stage.length.tokens is None or loader_config.caps.keys() != loader_config.shares.keys():
        return None
    return Draws(loader_config, costs).tokens()


def target_of(stage: Stage, loader_config: LoaderConfig, costs: Mapping[str, Costs]) -> float:
    """The stage's length in samples or, where it is given in tokens, in tokens; at most what its
    sources have, so that the schedule ends with the data.
    """
    asked, has = stage.length.tokens, token_supply(stage, loader_config, costs)
    target = loader_config.samples if asked is None else min(asked, has or asked)
    assert target is not None
    return float(target)


def supply_remarks(
    stage: Stage, sizes: Mapping[str, int], tokens: float | None = None
) -> Iterator[str]:
    """A sentence for a stage whose sources end before it does. `tokens` are those that they have
    in all; None: that is not known, or they have no limit.
    """
    has: float | None = supply(stage, sizes)
    asked, unit = _samples_asked(stage, sizes), "records"
    if stage.length.tokens is not None:
        asked, has, unit = stage.length.tokens, tokens, "tokens"
    if asked is not None and has is not None and has < asked:
        [setting] = [name for name, value in stage.length if value is not None]
        yield (
            f"its sources end after {has:,.0f} {unit}, because of their `epochs`, and so do the"
            f" stage and its schedule; length.{setting} asks for {asked:,} {unit}"
        )
