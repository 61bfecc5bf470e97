"""`sailvit data view SRC|RECIPE`: a page of packs as the model sees them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sailvit.cli.data.opening import Format, Images, Overwrite, day_of, open_named
from sailvit.cli.terminal.options import Set
from sailvit.core.formatting import counted
from sailvit.core.outputs import refuse_foreign_file, write_output

if TYPE_CHECKING:
    from datetime import date

    from sailvit.core.recipe import Recipe
    from sailvit.core.records import Source
    from sailvit.data.processing.processor import Processor
    from sailvit.data.sampling.loader_config import LoaderConfig


Viewed = Annotated[
    str,
    typer.Argument(metavar="SRC|RECIPE", help="Data (file, folder, glob, URL), or a recipe."),
]
ShownBy = Annotated[
    Path | None,
    typer.Option(help="Recipe whose tokenizer, tiles and pack length show SRC; needed for data."),
]
Seed = Annotated[
    int | None,
    typer.Option(help="Seed of the order; left out, the packs that training sees first."),
]


def view(  # noqa: PLR0913, PLR0917 - the options of a command
    source: Viewed,
    recipe: ShownBy = None,
    stage: Annotated[str | None, typer.Option(help="Stage of RECIPE; left out, its first.")] = None,
    packs: Annotated[int, typer.Option(min=1, help="Packs to show.")] = 4,
    seed: Seed = None,
    out: Annotated[Path, typer.Option("--out", help="Page to write.")] = Path("view.html"),
    overrides: Set = None,
    format_name: Format = None,
    images: Images = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a page of packs: tiles, tokens, which are trained on, where samples begin."""
    # torch takes seconds to import; `sailvit --help` should not wait for it.
    from rich.console import Console

    from sailvit.dataprep.inspect.packs import view_packs
    from sailvit.models.loading.quiet import quiet_libraries
    from sailvit.recipes.loader import load_recipe
    from sailvit.report.packs import render_packs

    refuse_foreign_file(out, overwrite=overwrite)
    quiet_libraries()
    console = Console(markup=False)
    read_from = source if is_recipe(source) else _needed(recipe, source)
    loaded = load_recipe(read_from, overrides or ())
    if is_recipe(source):
        sources, loader_config = _of_recipe(loaded, stage)
        title = f"recipe {loaded.name}, stage {loader_config.name}"
    else:
        sources = open_named([source], format_name, images)
        loader_config = _of_data(loaded, sources)
        title = f"read as by recipe {loaded.name}"
    if seed is not None:
        # Without a seed it is the recipe's, so that the page shows what training reads first.
        loader_config = replace(loader_config, seed=seed)
    values = {
        "title": title,
        **view_packs(
            sources, _processor(loaded, day_of(loaded, read_from)), loader_config, packs=packs
        ),
    }
    write_output(out, render_packs(values))
    console.print(_told(values), highlight=False, soft_wrap=True)
    console.print(f"page: {out}", highlight=False, soft_wrap=True)


def is_recipe(source: str) -> bool:
    """Whether a command's argument names a recipe and not data: a YAML file, or a shipped
    recipe.
    """
    from sailvit.recipes.loader import shipped_recipes

    return Path(source).suffix in (".yaml", ".yml") or (
        source in shipped_recipes() and not Path(source).exists()
    )


def _needed(recipe: Path | None, source: str) -> Path:
    from sailvit.core.errors import DataError

    if recipe is None:
        raise DataError(
            f"{source} is data, which each model reads with its own tokenizer and tiles; say which with --recipe"
        )
    return recipe


def _of_recipe(recipe: Recipe, stage: str | None) -> tuple[dict[str, Source], LoaderConfig]:
    """The sources of a stage, and its loader config."""
    from sailvit.core.errors import RecipeError
    from sailvit.data.sources import open_source
    from sailvit.training.stages.stage_loader import make_loader_config

    indexes = {chosen.name: index for index, chosen in enumerate(recipe.stages)}
    if stage is not None and stage not in indexes:
        raise RecipeError(
            f"recipe {recipe.name} has no stage {stage!r}; it has {', '.join(indexes)}"
        )
    index = 0 if stage is None else indexes[stage]
    names = recipe.stages[index].data
    sources = {name: open_source(name, recipe.sources[name], Path()) for name in names}
    return sources, make_loader_config(
        recipe, index, {name: len(source) for name, source in sources.items()}
    )


def _of_data(recipe: Recipe, sources: dict[str, Source]) -> LoaderConfig:
    """A loader config of data alone, each record once, in packs as the recipe's first stage
    makes them.
    """
    from sailvit.data.sampling.loader_config import LoaderConfig

    return LoaderConfig(
        name="view",
        seed=recipe.seed,
        shares=dict.fromkeys(sources, 1.0),
        sequence=recipe.sequence,
        global_batch=1,
        samples=sum(map(len, sources.values())),
        tiles=recipe.stages[0].pack_tiles,
        quarantine=recipe.quarantine,
    )


def _processor(recipe: Recipe, day: date) -> Processor:
    from sailvit.core.errors import DataError
    from sailvit.data.processing.processor import Processor
    from sailvit.models.loading.build import build

    model = build(recipe.model, weights="meta")
    if model.tokenizer is None:
        raise DataError(
            f"the tokenizer of {recipe.model.language} is not on this machine; download it once"
        )
    return Processor(model.tokenizer, model.layout, recipe.sequence, day=day)


def _told(values: dict[str, Any]) -> str:
    """What the page shows, in a sentence."""
    packs = values["packs"]
    samples = [sample for pack in packs for sample in pack["samples"]]
    bad = sum(len(pack["bad"]) for pack in packs)
    wrong = [f"{sample['id']}: {problem}" for sample in samples for problem in sample["problems"]]
    told = [
        counted(len(packs), "pack"),
        counted(len(samples), "sample"),
        f"{counted(bad, 'record')} left out",
        counted(len(wrong), "problem"),
    ]
    return "\n".join([", ".join(told), *wrong[:10]])
