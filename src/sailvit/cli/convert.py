"""`sailvit convert`: an AIMv2 tower from one layout to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def convert(
    tower: Annotated[str, typer.Argument(help="Folder or hub id of an AIMv2 or SAILViT tower.")],
    out: Annotated[Path, typer.Option(help="New folder to write.")],
    to: Annotated[
        Literal["transformers", "sailvit"],
        typer.Option(help="Layout: transformers' own, or the original one of SAILViT's releases."),
    ] = "transformers",
) -> None:
    """Write an AIMv2 or SAILViT tower in transformers' layout, or back; bits stay equal."""
    # torch and transformers take seconds to import; `sailvit --help` should not wait for them.
    from sailvit.interop.conversion import convert as convert_tower
    from sailvit.models.loading.quiet import quiet_libraries

    quiet_libraries()
    made = convert_tower(tower, out, to)
    typer.echo(f"{out}: {made.tensors} tensors, {made.found} -> {made.written}, equal bit by bit.")
    if made.left_out:
        typer.echo(f"Left out, as features do not depend on them: {', '.join(made.left_out)}.")
    if made.written == "transformers":
        typer.echo(f'Use it: AutoModel.from_pretrained("{out}"), or model.tower in a recipe.')
