"""Tables whose numbers stay whole on a narrow terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_LEAST = 80
"""Columns that every table of the commands has room in."""


def print_table(console: Console, table: Table) -> None:
    """Print a table at the terminal's width, or at 80 columns where the terminal is narrower.

    A terminal breaks the longer lines, or a person widens it. Fitted into fewer columns, numbers
    would be cut and whole columns left out, and nothing would say so.
    """
    from rich.segment import Segments

    options = console.options.update(width=max(console.width, _LEAST))
    console.print(Segments(console.render(table, options)), crop=False, end="")
