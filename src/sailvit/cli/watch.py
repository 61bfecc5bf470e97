"""`sailvit watch RUN`: follow a run from another terminal, by its files alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from sailvit.core.run import RunFolder


def watch(
    run: Annotated[Path, typer.Argument(help="Run folder, for instance runs/demo.")],
    once: Annotated[
        bool, typer.Option("--once", help="Print how the run stands, and end.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 1.0,
) -> None:
    """Show where a run stands, live until it is complete or Ctrl-C; nothing is written and no GPU is used."""
    # numpy and rich, so that `sailvit --help` does not wait for them.
    from rich.console import Console
    from rich.live import Live

    from sailvit.cli.watching import picture
    from sailvit.report.following import Follower

    console = Console()
    follower = Follower(RunFolder(run))
    if once or not console.is_terminal:
        console.print(picture(follower.look(), console.width))
        return
    seen = follower.look()
    with Live(picture(seen, console.width), console=console, auto_refresh=False) as live:
        try:
            while not seen.complete:
                time.sleep(every)
                seen = follower.look()
                live.update(picture(seen, console.width), refresh=True)
        except KeyboardInterrupt:
            return
