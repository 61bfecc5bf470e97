"""What is wrong with a recipe, found without training. A problem would stop the run or make it
do nothing; a remark would not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sailvit.core.bad_records import UNUSABLE
from sailvit.core.errors import DataError
from sailvit.core.recipe import NOT_FOLDERS, Part, Recipe, Stage
from sailvit.core.records import Record, Source, Turn
from sailvit.data.processing.reasoning import with_reasoning
from sailvit.data.processing.text import TextEncoder
from sailvit.models.experts import asks_for_balance
from sailvit.models.guards.checkpoint_files import folder_problems
from sailvit.models.languages.positions import made_for, table_length
from sailvit.models.loading.build import MetaModel
from sailvit.training.objectives.base import known_objectives, objective_problems

_LOOKED = 32
"""Records of a source that are looked at for thinking."""
_WINDOWS = 6
"""Windows that a search needs to come from ten times too low or too high, if each is
decided."""


def file_problems(recipe: Recipe) -> Iterator[str]:
    """Files and folders that the recipe names and that are not there. Sources are checked by
    opening them.
    """
    connector = recipe.model.connector.source
    if connector is not None and not _there(connector):
        yield f"model.connector.source: {connector} does not exist; train a connector first, or leave it out"
    yield from _checkpoint_problems(recipe)
    for name, source in recipe.sources.items():
        if source.images is not None and not _there(source.images):
            yield f"sources.{name}.images: {source.images} does not exist; give the folder that image paths start from"
    yield from _start_problems(recipe)


def _start_problems(recipe: Recipe) -> Iterator[str]:
    starts = (
        (f"stages.{index}.start_from.{part}: {start}", part, start)
        for index, stage in enumerate(recipe.stages)
        for part, start in stage.start_from.items()
        if start not in NOT_FOLDERS
    )
    for where, part, start in starts:
        if not _there(start):
            yield f"{where} does not exist; expected previous, recipe, or the folder of a saved part"
        else:
            yield from (f"{where}: {text}" for text in folder_problems(part, start))


def _checkpoint_problems(recipe: Recipe) -> Iterator[str]:
    parts: tuple[Part, ...] = ("tower", "language")
    for part in parts:
        folder = getattr(recipe.model, part)
        found = folder_problems(part, folder, bare=True)
        yield from (f"model.{part}: {folder}: {text}" for text in found)


def stage_problems(stage: Stage, *, trained: int) -> Iterator[str]:
    """Settings of one stage that contradict each other."""
    if trained == 0:
        yield "it trains nothing: give at least one part a share above 0 in `train`"
    yield from objective_problems(stage.objectives)
    yield from _base_problems(stage)
    if (
        trained
        and stage.share("tower") + stage.share("connector") == 0
        and "next_token" not in stage.objectives
    ):
        yield "only the language trains, but no objective runs it; add next_token to `objectives`"


def _base_problems(stage: Stage) -> Iterator[str]:
    """Objectives that hold the tower near its base where it does not move."""
    for name in stage.objectives:
        if any(each.holds_base for each in known_objectives([name])) and not stage.share("tower"):
            yield f"{name} keeps the tower near its base, but the tower does not train; leave it out"


def stage_remarks(stage: Stage) -> Iterator[str]:
    """Settings of one stage that are allowed but rarely intended."""
    for part, train in stage.train.items():
        if train.lr == 0:
            yield f"`train` lists {part} with share 0, so it stays frozen; leave it out to say the same"
        elif part not in stage.save:
            yield f"the {part} trains but is not in `save`, so what it learns here is not kept as a folder"
    if stage.global_batch % stage.micro_batch:
        yield (
            f"global_batch {stage.global_batch} is not a multiple of micro_batch {stage.micro_batch};"
            " the last forward pass of every step is a smaller one"
        )


def balance_remarks(recipe: Recipe, language: Any) -> Iterator[str]:
    """Stages that train a language without the auxiliary loss that its config asks for."""
    weight = asks_for_balance(language)
    without = [
        stage.name
        for stage in recipe.stages
        if stage.share("language") > 0 and "load_balancing" not in stage.objectives
    ]
    if weight is not None and without:
        yield (
            f"the language's config asks for the auxiliary loss of its experts, and it is off in"
            f" {', '.join(without)}; add load_balancing: {weight or 0.001:g} to `objectives` to have it"
        )


def search_remarks(stage: Stage, steps: int | None) -> Iterator[str]:
    """A learning-rate search for which a stage of so many steps is too short."""
    schedule = stage.schedule
    if schedule.search is None or steps is None:
        return
    windows = steps * (schedule.search.until - schedule.warmup) / schedule.search.window
    if windows < _WINDOWS:
        yield (
            f"between warm-up and search.until lie {windows:.1f} windows of {schedule.search.window} steps; a change of"
            f" the rate takes one or two, ten times the rate at least {_WINDOWS}: lower search.window, or raise"
            " search.until"
        )


def position_remarks(recipe: Recipe, language: Any) -> Iterator[str]:
    """A sequence that is longer than what the language was made for."""
    if (table := table_length(language, recipe.sequence)) is not None:
        yield (
            f"sequence {recipe.sequence} is more than the {table} positions of the language's table;"
            " samples longer than that stop the run before its first step"
        )
        return
    longest = made_for(language)
    if longest is not None and recipe.sequence > longest:
        yield (
            f"sequence {recipe.sequence} is more than the {longest} positions that the language was made for;"
            " only samples longer than that are affected"
        )


def model_remarks(recipe: Recipe, model: MetaModel) -> Iterator[str]:
    """Sizes of the recipe that do not fit the parts, and what the chat template leaves out."""
    layout = model.layout
    most = layout.most_tiles
    if layout.native is not None and most >= recipe.sequence:
        yield (
            f"an image of model.image.max_patches takes {most} visual tokens, a pack holds"
            f" {recipe.sequence}; records with larger images than that are refused: lower max_patches"
            " or raise sequence"
        )
    elif most * layout.tokens_per_tile >= recipe.sequence:
        yield (
            f"an image of {most} tiles takes {most * layout.tokens_per_tile} visual tokens, a pack holds"
            f" {recipe.sequence}; lower model.image.max_tiles or raise sequence, or such records are refused"
        )
    yield from position_remarks(recipe, model.mllm.language)
    yield from balance_remarks(recipe, model.mllm.language.config)
    if model.tokenizer is not None and not model.tokenizer.chat_template:
        yield "the language has no chat template; turns are written in the plain form that docs/formats.md describes"
    if model.tokenizer is not None:
        with suppress(DataError):
            yield from TextEncoder(model.tokenizer, layout, model.day).remarks()


def thinking_remarks(sources: Mapping[str, Source], encoder: TextEncoder) -> Iterator[str]:
    """Sources whose answers begin with thinking, where prompts end with empty thinking."""
    thinks = Record("", (Turn("user", "a"), Turn("assistant", with_reasoning("b", "c"))))
    # Most templates ask in the form of training: for them no record is read.
    if not _only_asked(encoder, [thinks], 0):
        return
    for name, source in sources.items():
        # The first ones, as each shard of a remote source is fetched as a whole.
        looked = min(_LOOKED, len(source))
        found = [_only_asked(encoder, source, position) for position in range(looked)]
        if endings := list(filter(None, found)):
            yield (
                f"sources.{name}: answers begin with thinking ({len(endings)} of the first {looked}),"
                f" which is learnt; but prompts end with {endings[0]!r}, so the trained model is"
                " asked with thinking switched off: give the tokenizer a chat template that does not"
                " write that"
            )


def _only_asked(encoder: TextEncoder, records: Source | Sequence[Record], position: int) -> str:
    try:
        return encoder.only_asked(records[position])
    except UNUSABLE:
        # A bad record is told of elsewhere.
        return ""


def source_remarks(recipe: Recipe) -> Iterator[str]:
    """Sources that nothing uses."""
    used = {recipe.monitoring.source, *(name for stage in recipe.stages for name in stage.data)}
    if spare := [name for name in recipe.sources if name not in used]:
        yield f"no stage uses {', '.join(spare)}"


def _there(path: str) -> bool:
    # Shipped checkpoints and URLs are checked where they are opened.
    return path.startswith("sailvit:") or "://" in path or Path(path).exists()
