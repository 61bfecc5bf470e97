"""`sailvit bench train RECIPE`: how fast a recipe trains on this machine, without weights, data
or a run folder.
"""

from __future__ import annotations

import dataclasses
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sailvit.cli.terminal.options import RecipeName, Set
from sailvit.cli.terminal.tables import print_table
from sailvit.core.formatting import counted, flop_rate, percent, rate, size
from sailvit.core.outputs import refuse_foreign_file, write_output
from sailvit.recipes.loader import load_recipe

if TYPE_CHECKING:
    from rich.table import Table

    from sailvit.preflight.bench import Speed

bench = typer.Typer(no_args_is_help=True, help="Measure speed on this machine.")


MARK = dict.fromkeys(("recipe", "device", "processes"))
"""Keys of the figures of this command."""


@bench.callback()
def about() -> None:
    """Measure speed on this machine."""


@bench.command()
def train(
    recipe: RecipeName,
    overrides: Set = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps measured per stage.")] = 10,
    warmup: Annotated[int, typer.Option(min=1, help="Steps before them that are not.")] = 3,
    packs: Annotated[int, typer.Option(min=1, help="Most packs per step and process.")] = 8,
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this file.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that this command did not write.")
    ] = False,
) -> None:
    """Train a few steps of every stage with random weights; show speed, MFU and memory."""
    # Here, so that `sailvit --help` does not wait for torch.
    import torch
    from rich.console import Console

    from sailvit.distributed.processes import local_rank, process_group, rank
    from sailvit.models.loading.quiet import quiet_libraries
    from sailvit.preflight.bench import bench as measure

    if json is not None:
        refuse_foreign_file(json, MARK, overwrite=overwrite)
    quiet_libraries()
    loaded = load_recipe(recipe, overrides or ())
    with process_group():
        device = (
            torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")
        )
        speed = measure(loaded, device=device, steps=steps, warmup=warmup, packs=packs)
        # All processes measure, and one tells.
        if rank():
            return
    console = Console(markup=False)
    print_table(console, speed_table(speed))
    for text in notes(speed):
        console.print(text, highlight=False, soft_wrap=True)
    if json is not None:
        write_output(json, dumps(dataclasses.asdict(speed), indent=1, ensure_ascii=False) + "\n")


def _where(speed: Speed) -> str:
    return f"{speed.processes} x {speed.device}" if speed.processes > 1 else f"one {speed.device}"


def speed_table(speed: Speed) -> Table:
    """One row per stage."""
    from rich.table import Table

    table = Table(
        title=f"{speed.recipe} on {_where(speed)}",
        title_justify="left",
    )
    table.add_column("stage")
    headings = ["samples/s", "answer tokens/s", "MFU", "memory", "waiting"]
    if speed.datasheet_peak:
        headings.insert(3, "of datasheet")
    for heading in headings:
        table.add_column(heading, justify="right")
    for stage in speed.stages:
        shares = [stage.mfu] if stage.mfu_datasheet is None else [stage.mfu, stage.mfu_datasheet]
        table.add_row(
            stage.name,
            rate(stage.samples_per_s),
            rate(stage.answer_tokens_per_s),
            *map(percent, shares),
            size(stage.peak_bytes),
            percent(stage.waiting),
        )
    return table


def notes(speed: Speed) -> list[str]:
    """How the table's figures were measured, as sentences."""
    listed = f", by its datasheet {flop_rate(speed.datasheet_peak)}" if speed.datasheet_peak else ""
    stages = "; ".join(
        f"{stage.name} {counted(stage.steps, 'step')} of {counted(stage.packs, 'pack')}"
        for stage in speed.stages
    )
    lines = [
        f"Peak per device: {flop_rate(speed.measured_peak)} in {speed.precision}, measured on a large matrix"
        f" product just before{listed}.",
        f"Weights are random. Measured: {stages}.",
    ]
    if speed.invented:
        lines.append(f"Not here, so invented: {', '.join(speed.invented)}.")
    return lines
