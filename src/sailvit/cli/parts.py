"""`sailvit parts`: tower, connector and language of a multimodal model, as folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sailvit.core.formatting import counted


def parts(
    model: Annotated[
        str, typer.Argument(help="Folder or hub id of a multimodal model.", metavar="MODEL")
    ],
    out: Annotated[Path, typer.Option(help="New folder to write.")],
) -> None:
    """Take tower, connector and language out of a multimodal model, each as its own folder."""
    # torch and transformers take seconds to import; `sailvit --help` should not wait for them.
    from sailvit.interop.parts import MODEL, take_parts
    from sailvit.models.loading.quiet import quiet_libraries

    quiet_libraries()
    taken = take_parts(model, out)
    typer.echo(f"{model} is in {taken.layout}.")
    for part, folder in taken.folders.items():
        typer.echo(f"  {part}: {folder}")
    for part, reason in taken.refused.items():
        typer.echo(f"  {part}: not taken out, as {reason}.")
    for note in taken.notes:
        typer.echo(f"Note: {note}.")
    if taken.left_out:
        shown = ", ".join(taken.left_out[:3]) + (", ..." if len(taken.left_out) > 3 else "")
        count = counted(len(taken.left_out), "tensor")
        typer.echo(f"Left out, as part of none of the three: {count} ({shown}).")
    typer.echo(f"The model section of a recipe with these parts is {out / MODEL}.")
    if not taken.refused:
        typer.echo(f'Ask it: sailvit ask {out} "What is in the image?" --image FILE')
