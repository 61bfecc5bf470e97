"""A run on the console: live lines on a terminal and in a notebook, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from sailvit.api.screen import Measured, Screen
from sailvit.cli.progress import ProgressCallback, announcement, measuring, opening
from sailvit.core.recipe import Recipe
from sailvit.training.stages.callback import Callback


class ConsoleScreen(Screen):
    """Shows on a console how a run goes; `verbose` shows every proof as a table."""

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        self._console = console
        self._verbose = verbose

    def callbacks(self) -> Sequence[Callback]:
        """The progress of every stage."""
        return [ProgressCallback(self._console)]

    def begin(self, title: str) -> None:
        """Draw a line with a title."""
        self._console.rule(title)

    def open_run(self, recipe: Recipe, folder: Path) -> None:
        """Say where the run writes, on what it computes and what it loads."""
        self._console.print(
            opening(recipe, folder), highlight=False, soft_wrap=not self._console.is_terminal
        )

    def measuring(self) -> AbstractContextManager[Measured]:
        """A bar for every source that is measured."""
        return measuring(self._console)

    def say(self, text: str) -> None:
        """Print a sentence."""
        self._console.print(escape(text), highlight=False)

    def announce(self, line: dict[str, Any]) -> None:
        """Print a proof, an event or a note of the run."""
        self._console.print(announcement(line, verbose=self._verbose), highlight=False)
