"""Rows of JSON and JSONL files by position, and what their readers share."""

from __future__ import annotations

import json
from array import array
from difflib import get_close_matches
from functools import cached_property
from hashlib import blake2b
from os.path import normpath
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from sailvit.core.config import Config
from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig


class RowOptions(Config):
    """Options of every reader of rows."""

    limit: Annotated[int, Field(ge=1)] | None = None
    """Read only this many rows from the start; none reads all."""


Options = TypeVar("Options", bound=RowOptions)


def read_options(kind: type[Options], config: SourceConfig) -> Options:
    """A reader's options; DataError that names the wrong one and the nearest right name."""
    try:
        return kind.model_validate(config.options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        near = get_close_matches(key, kind.model_fields, n=1, cutoff=0.0)
        hint = f"did you mean {near[0]}?" if first["type"] == "extra_forbidden" else first["msg"]
        raise DataError(
            f"option {key!r} of format {config.format} is not right ({hint}); known are {', '.join(kind.model_fields)}"
        ) from error


def image_path(folder: Path, name: str) -> Path:
    """The path of an image named by a row; DataError when the name leads out of `folder`."""
    inside = normpath(name)
    if PurePosixPath(inside).is_absolute() or inside.split("/")[0] == "..":
        raise DataError(f"image {name!r} leads out of {folder}; expected a relative path inside that folder")
    return folder / inside


class RowFile:
    """JSON objects by position.

    A `.jsonl` file is indexed by byte offsets (8 bytes per row in memory) and read row by row; a `.json` array is held
    whole, as JSON has no offsets. Every read opens the file anew, so forked loaders never share a file position.
    """

    def __init__(self, config: SourceConfig, folder: Path, options: RowOptions) -> None:
        if config.path is None:
            raise DataError(f"no `path`; format {config.format} needs the JSON or JSONL file to read")
        self.path = folder / config.path
        if not self.path.is_file():
            raise DataError(f"{self.path} is not a file; check `path` (relative paths start at the recipe's folder)")
        self.images = folder / config.images if config.images else self.path.parent
        self._options = options
        self._rows = _read_array(self.path) if self.path.suffix == ".json" else None
        self._offsets = _line_offsets(self.path) if self._rows is None else array("q")

    def __len__(self) -> int:
        found = len(self._offsets) if self._rows is None else len(self._rows)
        return min(found, self._options.limit or found)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The row at `position`."""
        row = self._line(position) if self._rows is None else self._rows[position]
        if not isinstance(row, dict):
            raise DataError(f"found {type(row).__name__} {str(row)[:40]!r} in {self.path}; expected a JSON object")
        return row

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the file's bytes and the options; the images are not read."""
        digest = blake2b(self._options.model_dump_json().encode(), digest_size=8)
        with self.path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def image(self, name: str) -> Path:
        """The path of an image named by a row; DataError when the name leads out of the image folder."""
        return image_path(self.images, name)

    def _line(self, position: int) -> Any:
        with self.path.open("rb") as file:
            file.seek(self._offsets[position])
            line = file.readline()
        try:
            return json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{self.path} is not JSON at byte {self._offsets[position]} ({error}); expected one object per line"
            ) from error


def _read_array(path: Path) -> list[Any]:
    try:
        rows = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); name it .jsonl if it has one object per line") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} holds {type(rows).__name__}; expected an array of objects")
    return rows


def _line_offsets(path: Path) -> array[int]:
    """Where each line that is not blank starts, in bytes."""
    offsets, at = array("q"), 0
    with path.open("rb") as file:
        for line in file:
            if not line.isspace():
                offsets.append(at)
            at += len(line)
    return offsets
