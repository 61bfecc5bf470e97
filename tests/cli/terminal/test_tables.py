"""Tables on terminals of every width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from sailvit.cli.terminal.tables import print_table

NUMBERS = ("1,234,567", "2 h 19 min", "1.7 GiB", "9.5e+13")
PATH = "/data/" + "a-folder-with-a-long-name/" * 5


def printed(width: int) -> str:
    table = Table(title="trainings")
    table.add_column("name", overflow="fold")
    for heading in ("samples", "time", "memory", "FLOPs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row(PATH, *NUMBERS)
    file = io.StringIO()
    print_table(Console(file=file, width=width), table)
    return file.getvalue()


@pytest.mark.parametrize("width", [1, 20, 40, 80, 200])
def test_no_number_is_cut_and_no_column_left_out(width: int):
    text = printed(width)
    assert all(each in text for each in (*NUMBERS, "name", "samples", "time", "memory", "FLOPs"))
    assert "…" not in text
    names = "".join(line.split("│")[1].strip() for line in text.splitlines() if "│" in line)
    assert names == PATH


@pytest.mark.parametrize("width", [1, 80, 200])
def test_lines_are_as_long_as_the_terminal_or_80_columns(width: int):
    longest = max(len(line) for line in printed(width).splitlines())
    assert 70 < longest <= max(width, 80)


def test_square_brackets_are_no_styles():
    """As in the name of a folder: rich would take them for tags, and fail at one that ends none."""
    table = Table(title="of run[/red]")
    table.add_column("[bold]name")
    table.add_row("runs[old]/[/b]x")
    file = io.StringIO()
    print_table(Console(file=file, width=80), table)
    assert all(each in file.getvalue() for each in ("run[/red]", "[bold]name", "runs[old]/[/b]x"))
