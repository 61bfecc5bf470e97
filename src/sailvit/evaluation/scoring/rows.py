"""Rows of a table of questions, with the values as VLMEvalKit holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import TypeAlias

from sailvit.core.errors import DataError
from sailvit.evaluation.scoring.cells import NOTHING, Cell, is_nothing, retyped

Row: TypeAlias = Mapping[str, Cell]
"""Cells by column."""

UNTYPED = frozenset(("image", "image_path", "index", "question"))
"""Columns whose texts stay as they are."""


def typed_cells(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Cell]]:
    """Rows with the types that their columns have once they are read: with one empty cell a
    column of whole numbers is one of floats, whose 4 is the text `4.0`.
    """
    columns = dict.fromkeys(column for row in rows for column in row)
    made: list[dict[str, Cell]] = [{} for _ in rows]
    for column in columns:
        texts = [row.get(column, "") for row in rows]
        cells: Sequence[Cell] = texts if column.lower() in UNTYPED else retyped(texts)
        for row, cell in zip(made, cells, strict=True):
            row[column] = cell
    return made


def lowered(row: Row) -> dict[str, Cell]:
    """A row with names of columns in lower case, apart from the letters of options."""
    return {name if name in ascii_uppercase else name.lower(): cell for name, cell in row.items()}


def typed_rows(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Cell]]:
    """Rows as they are scored: typed by whole columns, with lowered names."""
    return [lowered(row) for row in typed_cells(rows)]


def text(row: Row, column: str) -> str:
    """A cell's text, empty where there is nothing."""
    value = row.get(column, NOTHING)
    return "" if is_nothing(value) else str(value)


def needed(row: Row, column: str) -> str:
    """A cell's text as the kit compares it (`nan` for nothing); DataError without the column."""
    if column not in row:
        raise DataError(
            f"the table has no column {column!r}; it has {', '.join(map(str, row))[:200]}. Give a"
            " table of this kind of set, or name its kind"
        )
    return str(row[column])


def options_of(row: Row) -> dict[str, str]:
    """The texts of the options that a row has, by their letters."""
    return {
        letter: str(row[letter])
        for letter in ascii_uppercase
        if letter in row and not is_nothing(row[letter])
    }
