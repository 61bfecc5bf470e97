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
    would be cut and whole columns left out, and nothing would say so. Texts stand as they are: names
    and paths may hold square brackets, which rich takes for styles.
    """
    from rich.segment import Segments
    from rich.text import Text

    if isinstance(table.title, str):
        # The only text of a table that rich reads with the console's setting, not with this one.
        table.title = Text(table.title, style="table.title")
    options = console.options.update(width=max(console.width, _LEAST), markup=False)
    console.print(Segments(console.render(table, options)), crop=False, end="")
