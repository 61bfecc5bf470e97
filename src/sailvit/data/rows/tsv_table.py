"""Tables in VLMEvalKit's layout: rows of cells parted by tabs, images in base64 or in another row."""

from __future__ import annotations

import ast
import csv
from base64 import b64decode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Protocol

from sailvit.core.errors import DataError

REFERENCE = 64
"""A cell `image` of up to so many characters is the `index` of the row that holds the image;
VLMEvalKit decides it so."""
_LONGEST_CELL = 1 << 30
"""Most characters of a cell; csv's own limit of 131072 is too low for a photograph."""
Row = dict[str, str]
"""Cells by column."""


class Digest(Protocol):
    """A hash that takes bytes, of any kind of hashlib's."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes."""


def cell_reader(lines: Iterable[bytes]) -> Iterator[list[str]]:
    """Rows of cells. csv keeps its limit per process, so it is set here, before every use."""
    csv.field_size_limit(_LONGEST_CELL)
    return csv.reader((line.decode() for line in lines), delimiter="\t")


class _Lines:
    """Lines of a file, counted, as cells may hold line breaks and each row's start must be
    known.
    """

    def __init__(self, file: IO[bytes], digest: Digest) -> None:
        self._file = file
        self._digest = digest
        self.bytes = 0
        self.count = 0

    def __iter__(self) -> Iterator[bytes]:
        for line in self._file:
            self._digest.update(line)
            self.bytes += len(line)
            self.count += 1
            yield line


def table_rows(path: Path, digest: Digest) -> Iterator[tuple[int, int, Row]]:
    """First byte, line and cells of every row; the whole file goes into the digest."""
    with path.open("rb") as file:
        lines = _Lines(file, digest)
        try:
            reader = cell_reader(lines)
            columns = _checked_columns(next(reader, []), path)
            at, line = lines.bytes, lines.count + 1
            for cells in reader:
                if cells and len(cells) != len(columns):
                    raise DataError(
                        f"{path} line {line} has {len(cells)} cells; expected {len(columns)},"
                        " one per column: the file may be cut, fetch it again"
                    )
                if cells:
                    yield at, line, dict(zip(columns, cells, strict=True))
                # csv takes no line beyond the row that it gives, so the next row starts here.
                at, line = lines.bytes, lines.count + 1
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"{path} line {lines.count} cannot be read ({error}); expected cells parted by"
                " tabs, in UTF-8"
            ) from error


def _checked_columns(columns: list[str], path: Path) -> list[str]:
    columns = [column.removeprefix("\ufeff") for column in columns]
    if not {"index", "question"} <= set(columns):
        raise DataError(
            f"{path} has columns {', '.join(columns)[:200] or 'none'}; expected index, question,"
            " answer, and image or image_path, parted by tabs"
        )
    return columns


def holder_of(holders: dict[str, int], name: str, where: str) -> int:
    """The first byte of the row `name`, which must hold an image."""
    if holders.get(name, -1) < 0:
        raise DataError(
            f"{where}: image is {name!r}; expected base64, or the index of a row that holds an"
            " image"
        )
    return holders[name]


def listed(cell: str) -> list[str]:
    """The texts in a cell: none, one, or those of a Python list."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return [cell] if cell else []
    try:
        # The tables write lists as Python does; literals alone are read, nothing is run.
        found = ast.literal_eval(cell)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return [cell]
    return found if all(isinstance(item, str) for item in found) else [cell]


def decoded_image(cell: str) -> bytes:
    """The bytes of an image in base64; DataError for a cell that is none."""
    try:
        return b64decode("".join(cell.split()), validate=True)
    except ValueError as error:
        raise DataError(
            f"image {cell[:20]!r}... is not base64 ({error}); fetch the table again", kind="base64"
        ) from error
