"""The subcommands of `sailvit data`."""

from __future__ import annotations

import typer

data = typer.Typer(no_args_is_help=True, help="Prepare, check, look at and curate training data.")


@data.callback()
def about() -> None:
    """Prepare, check, look at and curate training data."""
