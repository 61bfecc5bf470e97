"""Files of predictions: the spreadsheet that VLMEvalKit scores and MMBench's server takes, JSON
lines, and those of others.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from sailvit.core.atomic import whole_file
from sailvit.core.errors import DataError
from sailvit.core.run import read_lines
from sailvit.evaluation.scoring.cells import Cell, is_nothing, retyped, stored
from sailvit.evaluation.scoring.matching import NEWEST, Matcher
from sailvit.evaluation.scoring.rows import Row
from sailvit.evaluation.suites.sets import OFFICIAL

ENDINGS = (".xlsx", ".tsv", ".jsonl")
"""Endings of files of predictions."""
_ANSWER = "prediction"
_LONGEST_CELL = 1 << 24


def write_xlsx(path: Path, rows: Sequence[Row], predictions: Sequence[str]) -> None:
    """Write a set's columns, as they are scored, and the predictions as a spreadsheet.

    Texts are written as texts, also `=1+1`, and characters that a spreadsheet cannot hold as
    the kit's writer writes them.
    """
    openpyxl = _openpyxl(path)
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    columns = list(rows[0]) if rows else ["index"]
    sheet.append([*columns, _ANSWER])
    for row, text in zip(rows, predictions, strict=True):
        values = [_index(row["index"]) if name == "index" else row[name] for name in columns]
        sheet.append([_cell(openpyxl, sheet, value) for value in [*values, text]])
    with whole_file(path) as draft:
        book.save(draft)


def write_jsonl(path: Path, rows: Sequence[Mapping[str, str]], predictions: Sequence[str]) -> None:
    """Write a set's columns and the predictions as JSON lines."""
    with whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        for row, text in zip(rows, predictions, strict=True):
            file.write(json.dumps({**row, _ANSWER: text}, ensure_ascii=False) + "\n")


def read_predictions(
    path: Path, matcher: Matcher = NEWEST
) -> tuple[list[dict[str, str]], list[Cell]]:
    """The rows of a file of predictions without them, and the predictions as VLMEvalKit would
    have them.

    Raises:
        DataError: the file cannot be read or has no predictions.
    """
    rows = _read(path)
    if not rows or not all(_ANSWER in row for row in rows):
        raise DataError(
            f"{path} has {len(rows)} rows and not in all a column `{_ANSWER}`; expected the"
            " questions of a set, each with its prediction"
        )
    answers = [row.pop(_ANSWER) for row in rows]
    if path.suffix == ".jsonl":
        # As if it had been written to a spreadsheet: so our own files give the kit's scores.
        answers = [stored(str(answer), matcher) for answer in answers]
    return [{name: _text(value) for name, value in row.items()} for row in rows], retyped(answers)


def _read(path: Path) -> list[dict[str, Any]]:
    readers = {".xlsx": _read_xlsx, ".tsv": _read_tsv, ".jsonl": _read_jsonl}
    if path.suffix not in readers:
        raise DataError(f"{path} is no file of predictions; expected one of {', '.join(ENDINGS)}")
    try:
        return readers[path.suffix](path)
    except (OSError, ValueError, KeyError, csv.Error, BadZipFile) as error:
        raise DataError(f"{path} cannot be read ({error}); write it again") from error


def set_name(path: Path) -> str:
    """The set in the name of a file such as `model_MMStar.xlsx`: an official one, else what
    stands after the first `_`.
    """
    # The longest first, as a file's name may end in two of them.
    official = sorted((each.name for each in OFFICIAL), key=len, reverse=True)
    found = next((name for name in official if path.stem.endswith(name)), None)
    return found or path.stem.partition("_")[2] or path.stem


def _openpyxl(path: Path) -> Any:
    try:
        import openpyxl
    except ImportError as error:
        raise DataError(
            f"{path} needs openpyxl; install it with: pip install 'sailvit[evaluate]', or use JSON"
            " lines"
        ) from error
    return openpyxl


def _index(value: Cell) -> Cell:
    text = str(value)
    # A spreadsheet keeps 15 digits of a number.
    return int(text) if text.isdecimal() and len(text) < 16 else text


def _cell(openpyxl: Any, sheet: Any, value: Cell) -> Any:
    if is_nothing(value) or value == "":
        return None
    if not isinstance(value, str):
        return value
    # Otherwise a text that begins with = becomes a formula.
    made = openpyxl.cell.WriteOnlyCell(sheet, value=stored(value))
    made.data_type = "s"
    return made


def _read_xlsx(path: Path) -> list[dict[str, Any]]:
    # Values in place of formulas, which nothing here could compute.
    book = _openpyxl(path).load_workbook(path, read_only=True, data_only=True)
    lines = book.worksheets[0].iter_rows(values_only=True)
    columns = [str(name) for name in next(lines, ())]
    # Empty cells at the end of a line are not handed out.
    rows = [dict.fromkeys(columns) | dict(zip(columns, line, strict=False)) for line in lines]
    return [row for row in rows if any(value is not None for value in row.values())]


def _read_tsv(path: Path) -> list[dict[str, Any]]:
    csv.field_size_limit(_LONGEST_CELL)
    # Spreadsheet programs write a mark of byte order first.
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t")
        columns, rows = next(reader, []), []
        for cells in filter(None, reader):
            if len(cells) != len(columns):
                raise ValueError(
                    f"line {reader.line_num} has {len(cells)} cells, expected {len(columns)}, one"
                    " per column"
                )
            rows.append(dict(zip(columns, cells, strict=True)))
    return rows


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    rows = list(read_lines(path))
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no object")
    return rows


def _text(value: Any) -> str:
    """A cell's text, as a table parted by tabs would have it."""
    return "" if value is None or is_nothing(value) else str(value)
