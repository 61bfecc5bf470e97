"""A set's table: questions in memory, images read from the file when they are asked for."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sailvit.core.errors import DataError
from sailvit.data.rows.image_refs import image_path
from sailvit.data.rows.tsv_table import (
    REFERENCE,
    Row,
    cell_reader,
    decoded_image,
    listed,
    table_rows,
)
from sailvit.evaluation.scoring.cells import Cell
from sailvit.evaluation.scoring.rows import typed_cells


@dataclass(frozen=True)
class _Place:
    """Where a row's image lies."""

    at: int
    """First byte of the row that holds it; -1: there is none in base64."""
    digest: str
    """Hash of the cell that holds it, or of what is known of its files."""


class QuestionTable:
    """The rows of a TSV file in VLMEvalKit's layout that have an image.

    Questions and answers stay in memory, images do not: a set may take gigabytes of them.
    """

    def __init__(self, path: Path, images: Path | None = None) -> None:
        """`images` is the folder of relative image paths; None: the table's own folder."""
        self.path = path
        self._images = images or path.parent
        # The hash that the kit lists for its files.
        digest = hashlib.md5(usedforsecurity=False)
        self.rows: list[Row] = []
        self._columns: list[str] = []
        self._places: list[_Place] = []
        self._index(digest)
        self.md5 = digest.hexdigest()
        """MD5 of the file."""

    @cached_property
    def cells(self) -> list[dict[str, Cell]]:
        """The rows as VLMEvalKit holds them: what is asked and scored, typed by whole columns."""
        return typed_cells(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, position: int) -> tuple[bytes | Path, ...]:
        """The images of a row, in order; DataError when they cannot be read."""
        place = self._places[position]
        if place.at >= 0:
            return tuple(decoded_image(cell) for cell in listed(self._image_cell(place.at)))
        names = listed(self.rows[position].get("image_path", ""))
        return tuple(image_path(self._images, name) for name in names)

    def image_digest(self, position: int) -> str:
        """A hash of the row's images; of those that are files, of paths, sizes and times."""
        return self._places[position].digest

    def _index(self, digest: hashlib._Hash) -> None:
        holders: dict[str, _Place] = {}
        references: list[str] = []
        has_images = False
        for at, line, row in table_rows(self.path, digest):
            self._columns = list(row)
            has_images = "image" in row
            cell, index = row.pop("image", ""), row.get("index", "")
            self._refuse_twice(holders, index, line)
            is_held = len(cell) > REFERENCE
            known = cell if has_images else self._files(row)
            holders[index] = _Place(at if is_held else -1, _hash(known))
            # A row without image is dropped where the table has a column for it, as in the kit.
            if cell or not has_images:
                self.rows.append(row)
                self._places.append(holders[index])
                references.append("" if is_held else cell)
        if not self.rows:
            raise DataError(f"{self.path} has no row with an image; expected at least one")
        self._places = [
            self._holder(holders, name, row) if name else place
            for name, row, place in zip(references, self.rows, self._places, strict=True)
        ]

    def _files(self, row: Row) -> str:
        """What tells the files of a row's images from those that took their place."""
        return "\0".join(self._file(name) for name in listed(row.get("image_path", "")))

    def _file(self, name: str) -> str:
        try:
            path = image_path(self._images, name).resolve()
            found = path.stat()
        except (DataError, OSError):
            return name
        # Sizes and times, as reading every image to know it would take as long as decoding it.
        return f"{path}\0{found.st_size}\0{found.st_mtime_ns}"

    def _refuse_twice(self, holders: dict[str, _Place], index: str, line: int) -> None:
        if index in holders:
            raise DataError(
                f"{self.path} line {line}: index {index!r} comes twice; expected each once"
            )

    def _holder(self, holders: dict[str, _Place], name: str, row: Row) -> _Place:
        found = holders.get(name)
        if found is None or found.at < 0:
            raise DataError(
                f"{self.path} index {row['index']}: image is {name!r}; expected base64, or the"
                " index of a row that holds an image"
            )
        return found

    def _image_cell(self, at: int) -> str:
        with self.path.open("rb") as file:
            file.seek(at)
            try:
                cells = dict(zip(self._columns, next(cell_reader(file), []), strict=True))
            except (csv.Error, ValueError) as error:
                raise DataError(
                    f"{self.path} changed while it was read; start again", kind="changed source"
                ) from error
        return cells["image"]


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=12).hexdigest()
