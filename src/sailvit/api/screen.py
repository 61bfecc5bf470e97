"""The interface through which a run shows its progress; its base class shows nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from sailvit.core.recipe import Recipe
from sailvit.training.stages.callback import Callback

Measured = Callable[[str, int, int], None]
"""Takes a source's name, how many of its records are measured, and how many there are."""


class Screen:
    """Shows nothing; the progress on a terminal and in a notebook is a subclass."""

    def callbacks(self) -> Sequence[Callback]:
        """Callbacks that show how far the run is."""
        return ()

    def begin(self, title: str) -> None:
        """Show that something begins."""

    def open_run(self, recipe: Recipe, folder: Path) -> None:
        """Show what is about to be loaded, and where the run writes."""

    def measuring(self) -> AbstractContextManager[Measured | None]:
        """A context for the measuring of sources; it gives the function to tell how far that
        is, or None.
        """
        return nullcontext()

    def say(self, text: str) -> None:
        """Show a sentence."""

    def announce(self, line: dict[str, Any]) -> None:
        """Show a proof, an event or a note of the run."""
