"""`sailvit export`: a run's model in a layout that other programs load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of one of its stages.")],
    to: Annotated[
        Literal["tower", "hf", "sailvl", "llava", "internvl", "aya_vision", "vip_llava"],
        typer.Option(help="Layout; see docs/interop.md."),
    ],
    out: Annotated[Path, typer.Option(help="New folder to write.")],
    stage: Annotated[
        str | None, typer.Option(help="Name of the stage; the last if left out.")
    ] = None,
    dtype: Annotated[
        Literal["fp32", "bf16"], typer.Option(help="Precision of the written weights.")
    ] = "fp32",
    names: Annotated[
        Literal["transformers", "aimv2"],
        typer.Option(help="Names of an AIMv2 tower's weights; aimv2: as SAILViT is released."),
    ] = "transformers",
) -> None:
    """Write a run's model so that stock tools load it; nothing appears unless it gives the same."""
    # torch and transformers take seconds to import; `sailvit --help` should not wait for them.
    from sailvit.api.exports import export_model
    from sailvit.models.loading.quiet import quiet_libraries

    quiet_libraries()
    typer.echo(f"Writing {out}, then loading it again without sailvit to compare ...")
    parity = export_model(run, to, out, stage=stage, dtype=dtype, original=names == "aimv2")
    worst = ", ".join(f"{what} {error:.0e}" for what, error in parity.worst.items())
    typer.echo(f"{out} gives what the model in memory gives.")
    typer.echo(f"Largest differences: {worst}.")
    if parity.tokens:
        typer.echo(f"{parity.tokens} tokens of prompts and greedy answers are equal.")
    if names == "transformers":
        typer.echo(f"How to load it: {out / 'README.md'}")
