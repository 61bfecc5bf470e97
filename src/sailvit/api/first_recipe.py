"""A first recipe for the tower, language and data that the user names: every setting is checked
or measured, and its reason stands beside it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template

import numpy as np

from sailvit.api.recipe_sources import (
    caption_sources,
    local_place,
    named_sources,
    source_line,
)
from sailvit.core.errors import RecipeError
from sailvit.core.formatting import counted
from sailvit.core.memory import free_memory
from sailvit.core.recipe import ConnectorConfig, ConnectorKind, ModelConfig, Recipe
from sailvit.core.records import Source
from sailvit.data.sources import open_source
from sailvit.distributed.processes import my_device
from sailvit.models.languages.positions import made_for, table_length
from sailvit.models.loading.build import MetaModel, build
from sailvit.preflight.memory import estimate_memory
from sailvit.preflight.plan import plan
from sailvit.preflight.samples import MeanSample, measured_sample, mixed_sample
from sailvit.recipes.dialect import read_yaml, write_line
from sailvit.recipes.loader import checked_recipe
from sailvit.training.checks.judging import cost_tables
from sailvit.training.optim.optimizer import freeze
from sailvit.training.stages.precision import settled

TILE_TOKENS = 256
"""Most visual tokens per tile: the published settings merge 32 x 32 patches into so many."""
MERGES = (1, 2, 3, 4)
"""Merges that are tried; more than 4 x 4 patches in one token lose small text."""
STEP_SAMPLES = 128
"""Samples per step to aim at; the published settings have 512 and more, on millions of
samples."""
STEPS = 50
"""Fewest steps per epoch to aim at, so that warm-up and decay have an effect."""
LONGEST = 32768
"""Tokens at which a measured record is cut."""
PACK = (1024, 8192)
"""Shortest and longest pack, unless the records or the memory demand others."""
FREE = 0.8
"""Share of the free memory that an estimate may fill."""

TEXT = Template("""\
# Written by `sailvit init`. `sailvit plan` shows what it would do and cost; docs/recipes.md
# explains the settings, `sailvit recipe show` also prints those that are left out here.

name: $name

model:
  tower: $tower
  language: $language
  connector: {${kind}merge: $merge}    # $why_merge

sequence: $sequence    # tokens per pack: $why_sequence

sources:    # formats as detected from the files; `sailvit formats` lists all
$sources

stages:
  - name: coarse                # the connector alone, so that the language can read its tokens
    train: {connector: 1}
    data: [$coarse]    # $why_coarse
    optim: {lr: 2e-4}           # the published rate of this stage
    length: {epochs: 1}         # one pass; `samples` or `tokens` set another length
    global_batch: $batch    # packs per step: $why_batch
    micro_batch: $micro    # packs at once: $why_micro

  - name: fine                  # the tower trains too, at the connector's rate
    train: {connector: 1, tower: 1}
    data: [$all]
    optim: {lr: 2e-5}           # the published rate: a tenth, as the tower is trained already
    length: {epochs: 1}         # as above
    global_batch: $batch    # as above
    micro_batch: $micro    # as above

  - name: world                 # all three parts
    train: {connector: 1, tower: 1, language: 1}
    data: [$all]
    optim: {lr: 1e-5}           # the published rate: lower again, as the language forgets first
    length: {epochs: 1}         # as above
    global_batch: $batch    # as above
    micro_batch: $micro    # as above
""")
"""The recipe with its comments; every choice has a name."""


@dataclass(frozen=True)
class _Choice:
    """Sizes that are chosen together, as each limits the others."""

    sequence: int
    """Tokens per pack."""
    batch: int
    """Packs per step."""
    micro: int = 1
    """Packs per forward pass."""


@dataclass(frozen=True)
class _Measured:
    """Measurements from which the sizes are chosen."""

    p95: int
    """Tokens that 95 of 100 records of every source have at most."""
    records: int
    """Number of records in all sources."""
    sample: MeanSample
    """The mean sample of all sources together."""
    positions: int | None
    """Tokens that the language's position table allows, or that its config says it was made
    for; None: neither ends before `LONGEST`."""


def first_recipe(
    tower: str,
    language: str,
    data: Sequence[str],
    *,
    name: str,
    images: str | None = None,
    connector: ConnectorKind = "merge_mlp",
) -> str:
    """The text of a recipe in three stages in which `sailvit plan` finds no problem.

    Args:
        tower: folder or hub id of the tower.
        language: folder or hub id of the language.
        data: paths of the sources.
        name: the recipe's name; characters that a file name should not have become hyphens.
        images: folder that image paths in records start from; None: that of the source's path.
        connector: kind of the connector.

    Raises:
        SailvitError: the tower, the language or the data cannot be used; the message says why.
    """
    configs = named_sources(data, images and local_place(images))
    model = ModelConfig(tower=local_place(tower), language=local_place(language))
    merge, why_merge = _merge(model, connector)
    merged = _with_connector(model, connector, merge)
    # Shapes alone, so that nothing of gigabytes is loaded or downloaded yet.
    meta = build(merged, weights="meta")
    sources = {key: open_source(key, config, Path()) for key, config in configs.items()}
    measured = _measure(sources, meta)
    first = caption_sources(configs)
    values = {
        "name": write_line(re.sub(r"[^A-Za-z0-9._-]+", "-", name) or "recipe"),
        "tower": write_line(model.tower),
        "language": write_line(model.language),
        "kind": "" if connector == "merge_mlp" else f"kind: {connector}, ",
        "merge": str(merge),
        "why_merge": why_merge,
        "sources": "\n".join(source_line(*each) for each in configs.items()),
        "all": write_line(list(configs))[1:-1],
        "coarse": write_line(first)[1:-1],
        "why_coarse": "captions describe images" if len(first) < len(configs) else "all sources",
    }
    text = _fitted(values, measured, meta)
    # By the judge of every recipe: what is written has passed it.
    if problems := plan(_parsed(text)).problems:
        raise RecipeError(_refusal(problems, has_images=images is not None))
    return text


def _refusal(problems: Sequence[str], *, has_images: bool) -> str:
    told = "".join(f"\n  {problem}" for problem in problems)
    if not has_images and "missing file" in told:
        told += (
            "\nPaths of images start at the folder of the file that names them; name another"
            " with --images"
        )
    return f"no recipe was written, as what it names would not train:{told}"


def _with_connector(config: ModelConfig, kind: ConnectorKind, merge: int) -> ModelConfig:
    return config.model_copy(update={"connector": ConnectorConfig(kind=kind, merge=merge)})


def _merge(config: ModelConfig, kind: ConnectorKind) -> tuple[int, str]:
    """Patches per side that become one token, and the reason for the choice."""
    side = build(_with_connector(config, kind, 1), weights="meta").mllm.tower.side
    if kind == "mlp":
        return 1, f"{side} x {side} patches per tile stay as many visual tokens, as in LLaVA"
    fits = [n for n in MERGES if side % n == 0 and (side // n) ** 2 <= TILE_TOKENS]
    grid = f"{side} x {side} patches"
    if not fits:
        return 1, f"{grid} per tile cannot be merged evenly, so each is a visual token"
    tokens = (side // fits[0]) ** 2
    # The smallest merge loses the least detail.
    return fits[0], f"{grid} per tile become {tokens} visual tokens; up to {TILE_TOKENS} are usual"


def _measure(sources: dict[str, Source], model: MetaModel) -> _Measured:
    tables = cost_tables(sources, model, LONGEST)
    samples = {name: measured_sample(source, model, LONGEST) for name, source in sources.items()}
    sizes = {name: len(source) for name, source in sources.items()}
    # Without the tokenizer only means are known; twice the mean stands in for the percentile.
    tails = [
        float(np.percentile(tables[name].tokens, 95))
        if name in tables
        else 2 * samples[name].tokens
        for name in sources
    ]
    return _Measured(
        p95=round(max(tails)),
        records=sum(sizes.values()),
        sample=mixed_sample(samples, {name: float(size) for name, size in sizes.items()}),
        positions=_positions(model),
    )


def _positions(model: MetaModel) -> int | None:
    language = model.mllm.language
    found = table_length(language, LONGEST) or made_for(language)
    return found if found is not None and found < LONGEST else None


def _fitted(values: dict[str, str], measured: _Measured, model: MetaModel) -> str:
    """The text with the largest pack and micro-batch that fit this machine's memory."""
    device = my_device()
    free = free_memory(device)
    # What lies behind the language's positions is cut: it could not be read, or was not learnt.
    most = measured.positions or LONGEST
    floor = min(_power(max(measured.p95, model.layout.tokens_per_tile)), most)
    # Four long records per pack let the packer choose; with one, packs end half empty.
    sequence = min(max(min(_power(4 * measured.p95), PACK[1]), PACK[0], floor), most)
    choice = _Choice(sequence, _batch(sequence, measured))
    precision = settled(_parsed(_written(values, choice, measured, "")), device).precision

    def need(tried: _Choice) -> float:
        """Estimated bytes that the recipe takes with these sizes."""
        recipe = _parsed(_written(values, tried, measured, ""))
        return _need(recipe.model_copy(update={"precision": precision}), measured.sample, model)

    room = float("inf") if free is None else FREE * free
    # The pack shrinks, as a micro-batch of one cannot.
    while need(choice) > room and choice.sequence // 2 >= floor:
        shorter = choice.sequence // 2
        choice = _Choice(shorter, _batch(shorter, measured))
    while choice.micro < min(8, choice.batch):
        wider = replace(choice, micro=2 * choice.micro)
        if need(wider) > room:
            break
        choice = wider
    told = f"{need(choice) / 2**30:,.1f} GiB by estimate"
    if free is not None:
        fits = "of" if need(choice) <= room else "does not fit; see parallel.mode=shard:"
        told += f", {fits} {free / 2**30:,.1f} GiB free on this {'GPU' if device.type == 'cuda' else 'machine'}"
    return _written(values, choice, measured, told)


def _batch(sequence: int, measured: _Measured) -> int:
    """Packs per step, a power of two."""
    samples = min(STEP_SAMPLES, max(1, measured.records // STEPS))
    # A power of two, which the usual numbers of processes divide.
    packs = samples * measured.sample.tokens / sequence
    return 1 << max(0, round(math.log2(max(packs, 1.0))))


def _power(tokens: float) -> int:
    """The smallest power of two of at least so many tokens, but LONGEST at most."""
    return min(1 << max(0, math.ceil(math.log2(max(tokens, 1)))), LONGEST)


def _need(recipe: Recipe, sample: MeanSample, model: MetaModel) -> float:
    """Estimated bytes of the stage that takes most, on one device."""
    needs = []
    for stage in recipe.stages:
        freeze(model.mllm, stage)
        needs.append(estimate_memory(model.mllm, recipe, stage, sample, language_runs=True).total)
    return max(needs)


def _written(values: dict[str, str], choice: _Choice, measured: _Measured, memory: str) -> str:
    mean = measured.sample.tokens
    per_step = choice.batch * choice.sequence / mean
    held = measured.positions is not None and choice.sequence >= measured.positions
    ends = f"; the language was made for {measured.positions:,} positions" if held else ""
    return TEXT.substitute(
        values,
        sequence=str(choice.sequence),
        why_sequence=f"95 of 100 records have at most {measured.p95:,}; {mean:,.0f} on average{ends}",
        batch=str(choice.batch),
        why_batch=f"about {counted(round(per_step), 'sample')} of {measured.records:,}",
        micro=str(choice.micro),
        why_micro=memory,
    )


def _parsed(text: str) -> Recipe:
    return checked_recipe(read_yaml(text, "the new recipe"), "the new recipe", Path())
