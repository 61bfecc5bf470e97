"""The plan of a run, made without weights: what trains, what that costs, how long it takes, and
what is wrong with the recipe.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sailvit.core.errors import DataError, ModelError, RecipeError
from sailvit.core.recipe import PARTS, Part, Recipe, Stage
from sailvit.core.records import Source
from sailvit.data.lengths.costs import CostTable
from sailvit.data.processing.text import TextEncoder
from sailvit.data.rows.keys import unread_line
from sailvit.data.sources import open_source
from sailvit.interop.export.reach import reachable
from sailvit.models.languages.positions import table_length
from sailvit.models.loading.build import MetaModel, build
from sailvit.models.measures.flops import flops_model
from sailvit.preflight.memory import Memory, estimate_memory
from sailvit.preflight.mixture import mean_sample
from sailvit.preflight.samples import MeanSample, assumed_sample, measured_sample
from sailvit.preflight.storage import Storage, estimate_storage, storage_remarks
from sailvit.training.checks.judging import (
    NO_PAIRS,
    cost_tables,
    judge,
    record_remarks,
    tokenizer_problems,
)
from sailvit.training.checks.problems import (
    file_problems,
    model_remarks,
    search_remarks,
    source_remarks,
    stage_problems,
    stage_remarks,
    thinking_remarks,
)
from sailvit.training.objectives.base import known_objectives
from sailvit.training.optim.optimizer import freeze
from sailvit.training.stages.stage_loader import samples_of, supply, supply_remarks


@dataclass(frozen=True)
class StagePlan:
    """What one stage will do."""

    name: str
    """The stage's name."""
    trains: dict[Part, int]
    """Parameters that train, by part; parts that are frozen are left out."""
    sample: MeanSample
    """Its mean sample, and where that comes from."""
    samples: int | None
    """Records drawn; None when the length is in epochs of sources that are not there."""
    tokens: float | None
    """Packed tokens, without padding."""
    steps: int | None
    """Optimizer steps, about."""
    flops: float | None
    """FLOPs of the whole stage, forward and backward."""
    memory: Memory
    """Per device, without sharding."""

    def seconds(self, speed: float) -> float | None:
        """Duration at `speed` FLOP/s over all devices together."""
        return None if self.flops is None else self.flops / speed


@dataclass(frozen=True)
class Plan:
    """The plan of a recipe."""

    name: str
    """The recipe's name."""
    parameters: dict[Part, int]
    """Parameters of each part; empty when the model cannot be built."""
    tile_size: int
    """Height and width of a tile, in pixels; 0 without a model."""
    tokens_per_tile: int
    """Visual tokens of one tile."""
    most_tiles: int
    """Most tiles of one image, its thumbnail included."""
    stages: tuple[StagePlan, ...]
    """In order; empty when the model cannot be built."""
    problems: tuple[str, ...]
    """What would stop the run."""
    remarks: tuple[str, ...]
    """What is allowed but rarely intended."""
    native: bool = False
    """Whether images keep their aspect ratio; then a tile is what becomes one visual token."""
    exports: tuple[str, ...] = ()
    """Layouts of `sailvit export` that the model fits."""
    storage: Storage | None = None
    """Disk space of states and parts; None when the model cannot be built or a stage cannot be
    planned."""

    @property
    def flops(self) -> float | None:
        """FLOPs of all stages; None when those of a stage are not known."""
        known = [stage.flops for stage in self.stages if stage.flops is not None]
        return sum(known) if known and len(known) == len(self.stages) else None


def plan(recipe: Recipe) -> Plan:
    """The plan of `recipe`; its faults become problems of the plan, so all are seen at once."""
    problems = list(file_problems(recipe))
    try:
        # Without weights a plan takes seconds, also for models that this machine cannot hold.
        model = build(recipe.model, weights="meta")
    except ModelError as error:
        problems += [f"model: {error}", *_open_sources(recipe)[1]]
        return Plan(recipe.name, {}, 0, 0, 0, (), tuple(problems), ())
    sources, found = _open_sources(recipe)
    samples, unreadable = _mean_samples(recipe, sources, model)
    sizes = {name: len(source) for name, source in sources.items()}
    tables, refused = _measured(recipe, sources, model)
    problems += found + (refused or _judged(recipe, sources, tables, unreadable, model))
    remarks = [*model_remarks(recipe, model), *source_remarks(recipe), *_unread(tables)]
    remarks += (*record_remarks(recipe, tables, sizes), *_thinking(sources, model, tables))
    stages = []
    for index, stage in enumerate(recipe.stages):
        where = f"stages.{index} ({stage.name})"
        try:
            freeze(model.mllm, stage)
        except RecipeError as error:
            problems.append(f"{where}: {error}")
            continue
        mean = mean_sample(stage, samples, sizes) or assumed_sample(model, recipe.sequence)
        planned = _plan_stage(recipe, stage, model, mean, sources)
        stages.append(planned)
        wrong = [
            *stage_problems(stage, trained=sum(planned.trains.values())),
            *_pair_problems(stage, planned.sample, samples, set(tables)),
        ]
        problems += [f"{where}: {text}" for text in wrong]
        noted = (*stage_remarks(stage), *search_remarks(stage, planned.steps))
        remarks += [f"{where}: {text}" for text in (*noted, *_short_supply(stage, sizes, samples))]
    layout, native = model.layout, model.layout.native is not None
    storage = _storage(recipe, model, stages)
    remarks += storage_remarks(storage, Path("runs", recipe.name).absolute())
    return Plan(
        name=recipe.name,
        parameters=_parameters(model),
        tile_size=layout.tile_size,
        tokens_per_tile=layout.tokens_per_tile,
        most_tiles=layout.most_tiles,
        native=native,
        exports=reachable(model.mllm, layout),
        stages=tuple(stages),
        problems=tuple(problems),
        remarks=tuple(remarks),
        storage=storage,
    )


def _plan_stage(
    recipe: Recipe,
    stage: Stage,
    model: MetaModel,
    sample: MeanSample,
    sources: Mapping[str, Source],
) -> StagePlan:
    runs = any(each.needs_logits for each in known_objectives(stage.objectives))
    flops = flops_model(model.mllm, language_runs=runs)
    each = flops.step(
        tiles=sample.tiles,
        pictures=sample.pictures,
        picture_squares=sample.picture_squares,
        segment_squares=sample.squares,
        tokens=sample.tokens,
        answer_tokens=sample.answers,
    )
    count = _sample_count(stage, sample, {name: len(source) for name, source in sources.items()})
    tokens = None if count is None else count * sample.tokens
    trains = {part: _count(model, part, trained=True) for part in PARTS}
    return StagePlan(
        name=stage.name,
        trains={part: number for part, number in trains.items() if number},
        sample=sample,
        samples=count,
        tokens=tokens,
        steps=None
        if count is None
        else math.ceil(count * _packs(recipe, stage, sample) / stage.global_batch),
        flops=None if count is None else count * each,
        memory=estimate_memory(model.mllm, recipe, stage, sample, language_runs=runs),
    )


def _parameters(model: MetaModel) -> dict[Part, int]:
    return {part: _count(model, part) for part in PARTS}


def _storage(recipe: Recipe, model: MetaModel, stages: list[StagePlan]) -> Storage | None:
    """Disk space of states and parts; None when a stage cannot be planned."""
    if len(stages) < len(recipe.stages):
        return None
    trains = [stage.trains for stage in stages]
    moments = [stage.memory.moments for stage in stages]
    return estimate_storage(recipe, _parameters(model), trains, moments, adapters=_adapters(model))


def _adapters(model: MetaModel) -> int | None:
    """Parameters of the language's adapters; None without any."""
    adapters, language = model.mllm.adapters, model.mllm.language
    if adapters is None:
        return None
    return sum(int(p.numel()) for n, p in language.named_parameters() if n in adapters.names)


def _packs(recipe: Recipe, stage: Stage, sample: MeanSample) -> float:
    """Packs that a sample fills, by its tokens or, where fewer tiles are allowed, by its tiles."""
    # Padding is left out: 2 % of packs of 4096 tokens, 0.2 % of 8192 (benchmarks/plan.py).
    by_tiles = 0.0 if stage.pack_tiles is None else sample.tiles / stage.pack_tiles
    return max(sample.tokens / recipe.sequence, by_tiles)


def _short_supply(
    stage: Stage, sizes: Mapping[str, int], samples: Mapping[str, MeanSample]
) -> list[str]:
    """A sentence for a stage whose sources end before it does, by their mean lengths."""
    if any(name not in sizes for name in stage.data):
        return []
    tokens, caps = None, stage.caps(sizes)
    if caps.keys() == set(stage.data) and caps.keys() <= samples.keys():
        tokens = sum(count * samples[name].tokens for name, count in caps.items())
    return list(supply_remarks(stage, sizes, tokens))


def _sample_count(stage: Stage, sample: MeanSample, sizes: Mapping[str, int]) -> int | None:
    there = all(name in sizes for name in stage.data)
    if stage.length.tokens is not None:
        asked = math.ceil(stage.length.tokens / sample.tokens)
        has = supply(stage, sizes) if there else None
        return asked if has is None else min(asked, has)
    return samples_of(stage, sizes) if there else stage.length.samples


def _open_sources(recipe: Recipe) -> tuple[dict[str, Source], list[str]]:
    sources, problems = {}, []
    for name, config in recipe.sources.items():
        try:
            sources[name] = open_source(name, config, Path())
        except DataError as error:
            problems.append(f"sources.{name}: {str(error).removeprefix(f'source {name}: ')}")
    return sources, problems


def _mean_samples(
    recipe: Recipe, sources: Mapping[str, Source], model: MetaModel
) -> tuple[dict[str, MeanSample], dict[str, str]]:
    samples, problems = {}, {}
    for name, source in sources.items():
        try:
            samples[name] = measured_sample(source, model, recipe.sequence)
        except DataError as error:
            problems[name] = f"sources.{name}: {error}"
    return samples, problems


def _unread(tables: Mapping[str, CostTable]) -> list[str]:
    """A sentence for each source whose measured records hold keys that nothing reads."""
    return [unread_line(name, table.unread) for name, table in tables.items() if table.unread]


def _thinking(
    sources: Mapping[str, Source], model: MetaModel, tables: Mapping[str, CostTable]
) -> Iterator[str]:
    # Without tables the tokenizer cannot write conversations.
    if model.tokenizer is not None and tables:
        encoder = TextEncoder(model.tokenizer, model.layout, model.day)
        yield from thinking_remarks(sources, encoder)


def _judged(
    recipe: Recipe,
    sources: Mapping[str, Source],
    tables: Mapping[str, CostTable],
    unreadable: Mapping[str, str],
    model: MetaModel,
) -> list[str]:
    """The problems of all sources: from their costs where these were measured, otherwise the
    error that reading them raised.
    """
    sizes = {name: len(source) for name, source in sources.items()}
    problems = [text for name, text in unreadable.items() if name not in tables]
    ends = table_length(model.mllm.language, recipe.sequence)
    found = judge(recipe, tables, sizes, positions=ends)
    return problems + [str(error) for error in found]


def _measured(
    recipe: Recipe, sources: Mapping[str, Source], model: MetaModel
) -> tuple[dict[str, CostTable], list[str]]:
    """What the sources' records cost, and what is wrong with the tokenizer."""
    if model.tokenizer is not None and (refused := tokenizer_problems(recipe)):
        return {}, list(map(str, refused))
    return cost_tables(sources, model, recipe.sequence), []


def _pair_problems(
    stage: Stage, sample: MeanSample, samples: Mapping[str, MeanSample], judged: set[str]
) -> list[str]:
    """A sentence when an objective of pairs would have none, for a stage whose sources could
    not all be judged.
    """
    readable = all(name in samples for name in stage.data) and not judged.issuperset(stage.data)
    paired = any(each.needs_pairs for each in known_objectives(stage.objectives))
    if paired and readable and sample.captions == 0:
        return [f"{NO_PAIRS} its sources"]
    return []


def _count(model: MetaModel, part: Part, *, trained: bool = False) -> int:
    return sum(
        p.numel() for p in model.mllm.part(part).parameters() if p.requires_grad or not trained
    )
