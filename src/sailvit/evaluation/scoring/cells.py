"""What becomes of values in a prediction file: VLMEvalKit scores what pandas reads back from a
spreadsheet, and that is part of the score.

An answer `None` comes back as nothing and is scored as the text `nan`, a line break of Windows
comes back as `_x000D_`, and a column of numbers alone loses its texts: `007` becomes 7, and
with one empty cell 7.0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TypeAlias

from sailvit.evaluation.scoring.matching import NEWEST, Matcher

Cell: TypeAlias = "str | int | float | bool"
"""A value of a table; nothing is float nan, whose text is `nan`."""
NOTHING = math.nan
"""What an empty cell holds."""

_LONGEST = 32_767
"""Characters of a cell that a spreadsheet holds; the rest is lost."""
_EMPTY = frozenset(
    (
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"),
        *("1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    )
)
"""Texts that pandas reads as nothing."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\ufffe\uffff]")
"""Characters that XML cannot hold; tab and line feed stay."""
_LINK = re.compile(r"(?:mailto|internal):", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INFINITE = re.compile(r"([+-]?)inf(?:inity)?", re.IGNORECASE)
_TRUTH = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}


def is_nothing(value: object) -> bool:
    """Whether a cell is empty."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def says_nothing(text: str) -> bool:
    """Whether a text in a table is read as nothing: it is empty, or a word such as `nan`."""
    return text in _EMPTY


def stored(text: str, matcher: Matcher = NEWEST) -> str:
    """A text as a spreadsheet holds it."""
    # Kits before 2026-06 write such a text as a formula, whose result is 0 in a file that no
    # spreadsheet has computed.
    if matcher != "2026-06" and (text[:1] == "=" or (text[:2] == "{=" and text[-1:] == "}")):
        return "0"
    return _CONTROL.sub(lambda found: f"_x{ord(found[0]):04X}_", text[:_LONGEST])


def retyped(values: Sequence[object]) -> list[Cell]:
    """A column as pandas holds it after reading its cells: texts that stand for nothing are
    nothing, and a column of numbers or truth values alone has that type.
    """
    cells = [_whole(value) for value in values]
    present = [cell for cell in cells if not is_nothing(cell)]
    if not present:
        return cells
    made = _numbers(present, floats=len(present) < len(cells)) or _truths(present)
    if made is None:
        return cells
    typed = iter(made)
    return [cell if is_nothing(cell) else next(typed) for cell in cells]


def _numbers(cells: Sequence[Cell], *, floats: bool) -> list[Cell] | None:
    """The cells as numbers, of one type; None: some are no numbers."""
    numbers = [number for cell in cells if (number := _number(cell)) is not None]
    if len(numbers) < len(cells):
        return None
    # With an empty cell, or a decimal one, the whole column is of floats.
    if floats or any(isinstance(each, float) and str(each) != "-0.0" for each in numbers):
        return [float(number) for number in numbers]
    return [int(number) for number in numbers] if _fits(numbers) else None


def _truths(cells: Sequence[Cell]) -> list[Cell] | None:
    """The cells as truth values; None: some are none."""
    found = [_TRUTH[cell] for cell in cells if isinstance(cell, str) and cell in _TRUTH]
    return [*found] if len(found) == len(cells) else None


def read_back(texts: Sequence[str], matcher: Matcher = NEWEST) -> list[Cell]:
    """A column of answers after it was written to a spreadsheet and read from it."""
    return retyped([stored(text, matcher) for text in texts])


def _whole(value: object) -> Cell:
    if isinstance(value, str):
        return NOTHING if value in _EMPTY else value
    # A spreadsheet knows one kind of number, so a whole one comes back as an integer.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None:
        return NOTHING
    return value if isinstance(value, bool | int | float) else str(value)


def _fits(numbers: Sequence[int | float]) -> bool:
    """Whether 64 bits hold them, signed or all unsigned; else pandas leaves the texts."""
    low, high = min(numbers), max(numbers)
    return (low >= -(2**63) and high < 2**63) or (low >= 0 and high < 2**64)


def _number(cell: Cell) -> int | float | None:
    if isinstance(cell, bool):
        return None
    if not isinstance(cell, str):
        return cell
    text = cell.strip(" \t\n\r\v\f")
    if _INTEGER.fullmatch(text):
        # Minus zero keeps its sign in a column of floats; int() of it is 0.
        return -0.0 if text[0] == "-" and not int(text) else int(text)
    if _DECIMAL.fullmatch(text):
        return float(text)
    infinite = _INFINITE.fullmatch(text)
    return float(f"{infinite[1]}inf") if infinite else None
