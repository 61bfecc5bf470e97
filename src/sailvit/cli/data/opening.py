"""Opens data that are named on the command line, and the recipe whose tokens are counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from datetime import date

    from sailvit.core.recipe import Recipe, SourceConfig
    from sailvit.core.records import Source
    from sailvit.data.processing.processor import Processor

Format = Annotated[
    str | None,
    typer.Option("--format", help="Format of the data; left out, it is told from the path."),
]
Images = Annotated[
    str | None, typer.Option("--images", help="Folder that relative image paths start from.")
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace an output file that this command did not write."),
]
Workers = Annotated[
    int, typer.Option("--workers", min=0, help="Processes that read; 0 and 1 read in this one.")
]


def source_config(path: str, format_name: str | None, images: str | None) -> SourceConfig:
    """How to read what lies at a path, a glob or a URL."""
    from sailvit.core.recipe import SourceConfig
    from sailvit.data.sources.detect import detect

    if format_name is None:
        return detect(path, images=images)
    return SourceConfig(format=format_name, path=path, images=images)


def open_named(
    paths: Sequence[str], format_name: str | None, images: str | None
) -> dict[str, Source]:
    """The sources at some paths, named by the last part of the path; by the whole path if two
    last parts are the same.
    """
    from sailvit.data.sources import open_source

    short = [Path(path).stem for path in paths]
    names = short if len(set(short)) == len(short) else list(paths)
    configs = [source_config(path, format_name, images) for path in paths]
    return {
        name: open_source(name, config, Path()) for name, config in zip(names, configs, strict=True)
    }


def fault_lines(sources: Mapping[str, Source]) -> list[str]:
    """What the sources left out when they opened, as one line of markup each."""
    from rich.markup import escape

    from sailvit.core.records import faults_of

    return [
        f"[yellow]{escape(fault.kind)}[/yellow] in {escape(f'{name}, {fault}')}"
        for name, source in sources.items()
        for fault in faults_of(source, name)
    ]


def day_of(recipe: Recipe, path: str | Path) -> date:
    """The day that dated chat templates write: the run's, if the recipe is in a run folder."""
    from sailvit.core.run import RunFolder
    from sailvit.training.output.manifest import run_day

    folder = RunFolder(Path(path).parent)
    # Only a run's own recipe: another one in the same folder knows nothing of its day.
    inside = folder.recipe == Path(path) and folder.manifest.is_file()
    return run_day(folder, recipe) if inside else recipe.model.day


def processor_of(recipe: Path | None) -> Processor | None:
    """A processor that counts tokens and tiles as a recipe's model does; no weights are loaded.
    None without a recipe.
    """
    if recipe is None:
        return None
    from sailvit.core.errors import DataError
    from sailvit.data.processing.processor import Processor
    from sailvit.models.loading.build import build
    from sailvit.models.loading.quiet import quiet_libraries
    from sailvit.recipes.loader import load_recipe

    quiet_libraries()
    loaded = load_recipe(recipe)
    model = build(loaded.model, weights="meta")
    if model.tokenizer is None:
        raise DataError(
            f"the tokenizer of {loaded.model.language} is not on this machine, so tokens cannot be counted: download it"
            " once, or leave out --recipe"
        )
    return Processor(model.tokenizer, model.layout, loaded.sequence, day=day_of(loaded, recipe))


def recipe_line(name: str, format_name: str, path: Path) -> str:
    """How a recipe names data that were written to `path`, to be copied from any folder to any
    other.
    """
    from sailvit.recipes.dialect import write_line

    source = {"format": format_name, "path": str(path.absolute())}
    return f"In a recipe: {write_line(name)}: {write_line(source)}"
