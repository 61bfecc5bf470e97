"""`sailvit equip`: a multimodal model with a refined tower, ready for target training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sailvit.api.equip import Equipped


def equip(
    mllm: Annotated[
        str,
        typer.Argument(
            help="Multimodal model: a folder or hub id that `sailvit parts` reads, or a run.",
            metavar="MLLM",
        ),
    ],
    tower: Annotated[
        str, typer.Option(metavar="REFINED", help="Refined tower: a folder, a hub id or a run.")
    ],
    out: Annotated[Path, typer.Option(help="New folder to write.")],
    samples: Annotated[
        int | None, typer.Option(min=10, help="Samples of target training, over all stages.")
    ] = None,
    gpu_hours: Annotated[
        float | None, typer.Option(min=0, help="Or hours of one device, at MFU 0.4.")
    ] = None,
    tflops: Annotated[
        float | None,
        typer.Option(
            min=0, help="Peak of that device in TFLOP/s; left out, this machine's is measured."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Records to train on; may be repeated."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder that image paths start from, where it is not their file's own."),
    ] = None,
) -> None:
    """Put a refined tower into a multimodal model and write the recipe that trains them."""
    # torch and transformers take seconds to import; `sailvit --help` should not wait for them.
    from sailvit.api.equip import equip as equip_model
    from sailvit.api.recipe_sources import named_sources
    from sailvit.api.target_recipe import Budget
    from sailvit.models.loading.quiet import quiet_libraries

    quiet_libraries()
    budget = Budget(samples, gpu_hours, tflops)
    folder = None if images is None else str(images.absolute())
    sources = named_sources(data, folder) if data else None
    _tell(equip_model(mllm, tower, out, budget, sources))


def _tell(made: Equipped) -> None:
    if made.in_place:
        typer.echo("The tower is of the same family and shape: its weights are in place.")
        typer.echo(f"The connector is kept ({made.connector}).")
    else:
        typer.echo(f"The connector is new ({made.connector}), as the tower does not fit in place:")
        typer.echo(f"  {made.reason}.")
    for note in made.notes:
        typer.echo(f"Note: {note}.")
    typer.echo(f"Parts and recipe of target training: {made.recipe}")
    for problem in made.problems:
        typer.echo(f"Before training: {problem}")
    typer.echo(f"What it costs: sailvit plan {made.recipe}")
    typer.echo(f"Then: sailvit train {made.recipe}")
