"""Rows of JSON and JSONL files by position, and what the readers of rows share."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from difflib import get_close_matches
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field, ValidationError

from sailvit.core.config import Config
from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig

_BLANK = b" \t\r\n" + BOM_UTF8
"""Bytes that may stand before the first row."""


class RowOptions(Config):
    """Options of every reader of rows."""

    limit: Annotated[int, Field(ge=1)] | None = None
    """Number of rows to read, from the first one on; None: all."""


Options = TypeVar("Options", bound=RowOptions)


def read_options(kind: type[Options], config: SourceConfig) -> Options:
    """A reader's options; DataError that names the wrong one and the nearest right name."""
    try:
        return kind.model_validate(config.options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        # Without a cutoff, as one of so few names is worth to be told, however far off.
        near = get_close_matches(key, kind.model_fields, n=1, cutoff=0.0)
        hint = f"did you mean {near[0]}?" if first["type"] == "extra_forbidden" else first["msg"]
        raise DataError(
            f"option {key!r} of format {config.format} is not right ({hint}); known are"
            f" {', '.join(kind.model_fields)}"
        ) from error


class RowFile:
    """JSON objects by position.

    A file of lines is indexed by byte offsets (8 bytes per row in memory) and read row by row;
    an array is held in memory, as JSON has no offsets. The content shows which of them a file
    is, not its name: files named `.json` often hold lines. Every read opens the file anew, so
    that forked loaders never share a file position.
    """

    def __init__(self, config: SourceConfig, folder: Path, options: RowOptions) -> None:
        if config.path is None:
            raise DataError(
                f"no `path`; format {config.format} needs the JSON or JSONL file to read"
            )
        self.path = folder / config.path
        if not self.path.is_file():
            raise DataError(
                f"{self.path} is not a file; check `path` (relative paths start at the recipe's"
                " folder)"
            )
        self.images = folder / config.images if config.images else self.path.parent
        self._options = options
        self._rows = _read_array(self.path) if _is_array(self.path) else None
        self._offsets, self._blanks = (
            _line_offsets(self.path) if self._rows is None else (array("q"), array("q"))
        )

    def __len__(self) -> int:
        found = len(self._offsets) if self._rows is None else len(self._rows)
        return min(found, self._options.limit or found)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The row at `position`."""
        row = self._line(position) if self._rows is None else self._rows[position]
        if not isinstance(row, dict):
            raise DataError(
                f"found {type(row).__name__} {str(row)[:40]!r} in {self.path}; expected a JSON"
                " object",
                kind="text",
            )
        return row

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the file's bytes and the options; the images are not read."""
        digest = blake2b(self._options.model_dump_json().encode(), digest_size=8)
        with self.path.open("rb") as file:
            # In pieces, as the file may be larger than memory.
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def place(self, position: int) -> tuple[str, int | None]:
        """The file, and the line of the row, counted from 1; None as the line of an array's
        row.
        """
        return str(self.path), self._line_number(position) if self._rows is None else None

    def _line_number(self, position: int) -> int:
        # Blank lines hold no row, but editors count them.
        return position + 1 + bisect_right(self._blanks, position)

    def _line(self, position: int) -> Any:
        with self.path.open("rb") as file:
            file.seek(self._offsets[position])
            line = file.readline().rstrip()
        try:
            return json.loads(line, parse_constant=_missing)
        except (ValueError, RecursionError) as error:
            what = (
                f"{error.msg}, column {error.colno}"
                if isinstance(error, json.JSONDecodeError)
                else error
            )
            raise DataError(
                f"{self.path} line {self._line_number(position)} is not JSON ({what});"
                " expected one object per line: correct that line",
                kind="text",
            ) from error


class RowSource(Generic[Options]):
    """Base of sources of rows; a subclass makes a record of a row."""

    def __init__(self, rows: RowFile, options: Options) -> None:
        self._rows = rows
        self._options = options
        self.fingerprint = rows.fingerprint

    def __len__(self) -> int:
        return len(self._rows)

    def place(self, position: int) -> tuple[str, int | None]:
        """File and line of the record at `position`."""
        return self._rows.place(position)


def _is_array(path: Path) -> bool:
    """Whether a file holds one JSON value instead of lines. A lone object in a `.json` file
    counts as one, so that the error of reading it names what was found.
    """
    with path.open("rb") as file:
        start = file.read(1 << 16).lstrip(_BLANK)
        if path.suffix != ".json" or start.startswith(b"["):
            return start.startswith(b"[")
        file.seek(0)
        filled = (line.strip(_BLANK) for line in file)
        first, second = next(filter(None, filled), b""), next(filter(None, filled), b"")
    return not (first.endswith(b"}") and second)


def _read_array(path: Path) -> list[Any]:
    try:
        rows = json.loads(path.read_bytes().removeprefix(BOM_UTF8), parse_constant=_missing)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not JSON ({error}); expected an array of objects, or one object per line",
            kind="text",
        ) from error
    if not isinstance(rows, list):
        raise DataError(
            f"{path} holds {type(rows).__name__}; expected an array of objects", kind="text"
        )
    return rows


def _missing(constant: str) -> None:
    """`NaN`, which pandas writes where a table has no value, is no value here either."""
    del constant


def _line_offsets(path: Path) -> tuple[array[int], array[int]]:
    """The byte at which each line that is not blank starts, and for each blank line the row
    that follows it.
    """
    # 8 bytes each; a list of Python's integers would take about 40.
    offsets, blanks, at = array("q"), array("q"), 0
    with path.open("rb") as file:
        if file.read(2) in (BOM_UTF16_LE, BOM_UTF16_BE):
            # Its first line alone would be read as JSON, and no other.
            raise DataError(f"{path} is UTF-16; expected lines in UTF-8: save it anew", kind="text")
        file.seek(0)
        for line in file:
            mark = len(BOM_UTF8) if at == 0 and line.startswith(BOM_UTF8) else 0
            if line[mark:].isspace() or not line[mark:]:
                blanks.append(len(offsets))
            else:
                offsets.append(at + mark)
            at += len(line)
    return offsets, blanks
