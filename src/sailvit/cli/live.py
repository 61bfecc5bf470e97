"""Two lines that stand at the bottom of a terminal while a stage trains."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sailvit.core.formatting import clock

_SHORTEST, _LONGEST = 8, 40
"""Columns of the bar."""


@dataclass
class LiveLines:
    """The progress of a stage, and below it losses and speed, drawn for the terminal's width."""

    head: str
    """Which stage it is: `stage 1/3 coarse`."""
    done: float = 0.0
    """Share of the stage that is done, from 0 to 1."""
    seconds: float = 0.0
    """Time spent in the stage's steps, up to the last one."""
    left: float | None = None
    """Seconds to the stage's end; None: no step has been taken."""
    run_left: float | None = None
    """Seconds to the run's end; None: unknown."""
    facts: Sequence[str] = ()
    """Losses, speed and so on, the most important first."""
    at: float = field(default_factory=time.monotonic)
    """Time of the last step, so that the shown times run on between steps."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Both lines, neither wider than the terminal."""
        width = options.max_width
        yield self._bar(width)
        yield Text(fitting(self.facts, width), no_wrap=True, overflow="ellipsis")

    def _bar(self, width: int) -> Table:
        since = time.monotonic() - self.at
        times = [clock(self.seconds + since)]
        if self.left is not None:
            times.append(f"ETA {clock(self.left - since)}")
        if self.run_left is not None:
            times.append(f"run {clock(self.run_left - since)}")
        after = f"{int(100 * self.done):3} %  " + "  ".join(times)
        # A long stage name gives way before the numbers do.
        most = width - len(after) - 2 - _SHORTEST
        room = max(_SHORTEST, min(_LONGEST, width - len(self.head) - len(after) - 2))
        line = Table.grid(padding=(0, 1, 0, 0))
        line.add_row(
            Text(_clipped(self.head, most), style="bold", no_wrap=True),
            ProgressBar(total=1.0, completed=self.done, width=room),
            Text(after, no_wrap=True, overflow="ellipsis"),
        )
        return line


def fitting(facts: Sequence[str], width: int) -> str:
    """As many facts as fit into `width` columns, in order of importance; always the first."""
    line = ""
    for fact in facts:
        # The first fact always stands, even if the terminal is narrower: it is clipped there.
        longer = f"{line}  {fact}" if line else fact
        if line and len(longer) > width:
            break
        line = longer
    return line


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(most - 1, 0)] + "\N{HORIZONTAL ELLIPSIS}"
