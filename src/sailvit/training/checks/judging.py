"""Checks of a run's data before its first step: everything that would stop any of its stages is
reported at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sailvit.core.errors import DataError, ModelError, RecipeError, SailvitError
from sailvit.core.formatting import percent
from sailvit.core.layout import VisualLayout
from sailvit.core.recipe import Recipe, Stage
from sailvit.core.records import Source
from sailvit.data.lengths.costs import CostTable
from sailvit.data.lengths.measuring import Measurer
from sailvit.data.processing.processor import Processor
from sailvit.data.processing.text import TextEncoder
from sailvit.data.sources import open_source
from sailvit.models.languages.positions import table_length
from sailvit.models.loading.build import MetaModel, build
from sailvit.models.loading.configs import find_tokenizer
from sailvit.training.checks.problems import file_problems
from sailvit.training.objectives.base import known_objectives, objective_problems

JUDGED = 1000
"""Records measured per source to judge it without weights; training judges all of them."""
_SHOWN = 3
"""Bad records that a problem names."""
NO_PAIRS = "an objective of pairs needs records of kind caption with one image; none was found in"
"""What is said of a stage whose contrastive or prototype objective finds no pairs."""


def open_sources(recipe: Recipe, *, files: bool = True) -> dict[str, Source]:
    """The sources of all stages, after everything that can be checked before weights are loaded.

    With `files` False, as in a resumed run, the recipe's folders are not checked: a resumed run
    does not need them.

    Raises:
        SailvitError: the only problem, or RecipeError with all of them.
    """
    problems: list[SailvitError] = []
    if files:
        problems += map(RecipeError, file_problems(recipe))
    problems += _objective_problems(recipe)
    sources: dict[str, Source] = {}
    for name in _used(recipe):
        try:
            sources[name] = open_source(name, recipe.sources[name], Path.cwd())
        except DataError as error:
            problems.append(error)
    refused = tokenizer_problems(recipe)
    if not refused and (problems or not all(map(len, sources.values()))):
        # The run cannot start; with the records' problems too, it need not fail a second time.
        problems += _record_problems(recipe, sources)
    refuse(problems + refused)
    return {name: sources[name] for name in _staged(recipe)}


def _objective_problems(recipe: Recipe) -> Iterator[RecipeError]:
    """Objectives of all stages that cannot be made."""
    for index, stage in enumerate(recipe.stages):
        for text in objective_problems(stage.objectives):
            yield RecipeError(f"stages.{index} ({stage.name}): {text}")


def _used(recipe: Recipe) -> list[str]:
    """The sources of all stages, then that of monitoring."""
    names = _staged(recipe)
    if recipe.monitoring.every is not None and recipe.monitoring.source is not None:
        names.append(recipe.monitoring.source)
    return list(dict.fromkeys(names))


def _staged(recipe: Recipe) -> list[str]:
    """The sources of all stages."""
    return list(dict.fromkeys(name for stage in recipe.stages for name in stage.data))


def _record_problems(recipe: Recipe, sources: Mapping[str, Source]) -> list[SailvitError]:
    """What is wrong with the sources' records, found without weights."""
    sizes = {name: len(source) for name, source in sources.items()}
    try:
        model = build(recipe.model, weights="meta")
    except ModelError as error:
        return [error]
    ends = table_length(model.mllm.language, recipe.sequence)
    return judge(recipe, cost_tables(sources, model, recipe.sequence), sizes, positions=ends)


def cost_tables(
    sources: Mapping[str, Source], model: MetaModel, sequence: int
) -> dict[str, CostTable]:
    """The costs of up to `JUDGED` records per source, evenly spread over it; empty without a
    tokenizer.
    """
    if model.tokenizer is None:
        return {}
    processor = Processor(model.tokenizer, model.layout, sequence, day=model.day)
    tables = {}
    for name, source in sources.items():
        count = min(JUDGED, len(source))
        # Spread over the source, as files are often sorted by length or by kind.
        positions = [place * len(source) // count for place in range(count)]
        counts, bad, unread = Measurer(name, source, processor).measure(positions)
        tables[name] = CostTable(
            counts[0], counts[1], unread=unread, firsts=counts[2], pairs=counts[3], bad=tuple(bad)
        )
    return tables


def tokenizer_problems(recipe: Recipe) -> list[SailvitError]:
    """Why the language's tokenizer cannot write conversations; nothing where it is not on this
    machine yet.
    """
    config = recipe.model
    try:
        tokenizer = find_tokenizer(config)
        if tokenizer is not None:
            given = tokenizer.convert_tokens_to_ids(config.placeholder)
            layout = VisualLayout(1, 1, given, config.placeholder, wrap=config.image.wrap)
            TextEncoder(tokenizer, layout, config.day)
    except DataError as error:
        return [DataError(f"model.language: {error}", kind=error.kind)]
    except ModelError:
        # Loading the model fails likewise, with a message about the checkpoint.
        return []
    return []


def refuse(problems: Sequence[SailvitError]) -> None:
    """Raise the only problem, or one error that lists all; nothing when there is none."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        listed = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(problems, 1))
        raise RecipeError(
            f"{len(problems)} problems stop this run before its first step:\n{listed}"
        )


def judge(
    recipe: Recipe,
    costs: Mapping[str, CostTable],
    sizes: Mapping[str, int],
    *,
    positions: int | None = None,
) -> list[SailvitError]:
    """The problems that the measured records have with the recipe.

    `sizes` counts all records of every source, also where `costs` is a sample of them.
    `positions` is the length of the language's position table, if it is shorter than the
    recipe's sequence.
    """
    problems: list[SailvitError] = []
    for name in _used(recipe):
        if name in costs:
            found = _source_problem(recipe, costs[name], sizes[name])
            problems += [DataError(f"sources.{name}: {text}", kind="quarantine") for text in found]
            problems += map(ModelError, _position_problems(recipe, name, costs[name], positions))
    for index, stage in enumerate(recipe.stages):
        problems += [
            DataError(f"stages.{index} ({stage.name}): {text}", kind="pairs")
            for text in _pair_problems(stage, costs)
        ]
    return problems


def _position_problems(
    recipe: Recipe, name: str, table: CostTable, positions: int | None
) -> Iterator[str]:
    """A sentence when samples are longer than the language's table of positions."""
    longest = min(recipe.sequence, int(table.tokens.max(initial=0)))
    if positions is not None and longest > positions:
        yield (
            f"model.language: its table of positions ends at {positions}, and a sample of source {name} takes"
            f" {longest} tokens (sequence is {recipe.sequence}); set sequence to {positions} or less, which cuts"
            " such samples, or name a language with rotary positions"
        )


def record_remarks(
    recipe: Recipe, costs: Mapping[str, CostTable], sizes: Mapping[str, int]
) -> Iterator[str]:
    """Of every source from which a few records are left out, how many and why: nothing that
    stops the run.
    """
    for name in _used(recipe):
        table = costs.get(name)
        if table is None or not _unused(table, recipe.sequence):
            continue
        if not any(_source_problem(recipe, table, sizes[name])):
            told, first = _told(recipe, table, sizes[name])
            yield f"sources.{name}: {told}, and will be left out. The first:{first}"


def _source_problem(recipe: Recipe, table: CostTable, records: int) -> Iterator[str]:
    if not records:
        yield "it has no records; check its path, or leave it out of the recipe"
        return
    # The sampled share of bad records stands for all records of the source.
    bad, looked = _unused(table, recipe.sequence).total(), len(table)
    config = recipe.quarantine
    many = bad > config.share * looked and bad * records / looked > config.allow
    if not many and bad < looked:
        return
    told, first = _told(recipe, table, records)
    yield (
        f"{told}; at most {config.allow}, or {percent(config.share, 2)}, are left out. Repair or"
        f" remove them, or raise `quarantine` in the recipe. The first:{first}"
    )


def _unused(table: CostTable, sequence: int) -> Counter[str]:
    """How many of the measured records cannot be used, by the kind of their fault."""
    kinds = Counter(bad.kind for bad in table.bad)
    if long := len(_too_long(table, sequence)):
        kinds["too long"] += long
    return kinds


def _told(recipe: Recipe, table: CostTable, records: int) -> tuple[str, str]:
    """How many records of a source cannot be used and why, and lines with the first of them."""
    kinds, looked = _unused(table, recipe.sequence), len(table)
    long = _too_long(table, recipe.sequence)
    told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    where = f"{looked} records" if looked == records else f"{looked} records that were measured"
    first = [f"record {each.position}: {each.reason}" for each in table.bad[:_SHOWN]]
    if len(long) and len(first) < _SHOWN:
        first.append(
            f"record {long[0]}: no answer among the first {recipe.sequence} of {table.tokens[long[0]]} tokens;"
            " lengthen the recipe's `sequence`, allow fewer tiles, or shorten the prompt"
        )
    lines = "".join(f"\n      {line}" for line in first)
    return f"{kinds.total()} of {where} cannot be used ({told})", lines


def _too_long(table: CostTable, sequence: int) -> NDArray[np.int64]:
    """Positions of records whose first answer begins after the end of a pack."""
    if table.firsts is None:
        return np.zeros(0, dtype=np.int64)
    # The label at a pack's last position would be the token after it, which is cut off.
    cut = (table.tokens > sequence) & (table.firsts >= sequence - 1)
    return np.flatnonzero(cut)


def _pair_problems(stage: Stage, costs: Mapping[str, CostTable]) -> Iterator[str]:
    """Sentences on sources without pairs for an objective of pairs, where no other objective
    learns from them.
    """
    if not any(each.needs_pairs for each in known_objectives(stage.objectives)):
        return
    without = [name for name in stage.data if _has_no_pairs(costs.get(name))]
    if len(without) == len(stage.data):
        yield f"{NO_PAIRS} its sources"
    elif len(stage.objectives) == 1:
        for name in without:
            yield f"{NO_PAIRS} {name}, and no other objective learns from it"


def _has_no_pairs(table: CostTable | None) -> bool:
    """Whether a source is known to hold no captions of one image."""
    return table is not None and table.pairs is not None and not table.pairs.any()
