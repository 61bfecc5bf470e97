"""`sailvit watch RUN`: follow a run from another terminal, by its files alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sailvit.core.run import RunFolder

if TYPE_CHECKING:
    from rich.console import RenderableType


def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, for instance runs/demo.")],
    once: Annotated[
        bool, typer.Option("--once", help="Print how the run stands, and end.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between updates.")] = 1.0,
) -> None:
    """Show where a run stands, live until it ends or Ctrl-C; nothing is written, no GPU is used."""
    # numpy and rich, so that `sailvit --help` does not wait for them.
    from rich.console import Console
    from rich.live import Live

    from sailvit.cli.watching import ending, picture
    from sailvit.report.following import Follower

    console = Console()
    follower = Follower(RunFolder(run))
    if once or not console.is_terminal:
        seen = follower.read()
        console.print(picture(seen, console.width))
        console.print(ending(seen), highlight=False, soft_wrap=True, end="")
        return

    def drawn() -> RenderableType:
        """The run as it was seen, in a terminal that may have changed its size."""
        # A row less than the screen, which would scroll with every update if it were full.
        return picture(seen, console.width, console.height - 1)

    seen = follower.read()
    # Drawn when something was read; rich's own refresh would draw four times a second.
    with Live(drawn(), console=console, auto_refresh=False) as live:
        try:
            while seen.ended is None:
                time.sleep(every)
                seen = follower.read()
                live.update(drawn(), refresh=True)
        # How watching is meant to end: no failure, and no advice.
        except KeyboardInterrupt:
            return
    console.print(ending(seen), highlight=False, soft_wrap=True, end="")
