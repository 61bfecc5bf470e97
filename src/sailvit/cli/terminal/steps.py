"""A progress bar for work of several steps, each over records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn, TaskID


def count_columns() -> tuple[ProgressColumn, ...]:
    """The columns of a bar that counts records: what, the bar, how many, and how long still."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    text = TextColumn("{task.description}", markup=False)
    return text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()


@contextmanager
def steps_shown(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Takes a step's name, how many records it has done and how many it has to do; draws on
    terminals only.
    """
    from rich.progress import Progress

    bars: dict[str, TaskID] = {}
    with Progress(
        *count_columns(), console=console, transient=True, disable=not console.is_terminal
    ) as progress:

        def show(step: str, done: int, total: int) -> None:
            """Move the step's bar."""
            if step not in bars:
                bars[step] = progress.add_task(step, total=total)
            progress.update(bars[step], completed=done)

        yield show
