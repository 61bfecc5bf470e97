"""Question sets in VLMEvalKit's layout: tab-separated rows with images in base64."""

from __future__ import annotations

import csv
import re
from hashlib import blake2b
from pathlib import Path
from string import ascii_uppercase
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import IMAGE_MARK, Record, Turn
from sailvit.data.rows.image_refs import image_path
from sailvit.data.rows.keys import grounding_marks, refuse_keys, refuse_marks, unread_keys
from sailvit.data.rows.row import RowOptions, read_options
from sailvit.data.rows.tsv_table import (
    REFERENCE,
    Row,
    cell_reader,
    decoded_image,
    holder_of,
    listed,
    table_rows,
)

_NUMBERED = re.compile(r"<image (\d)>")
"""MMMU's marks, which name the number of their image."""

_READ = frozenset(("index", "question", "answer", "image", "image_path", *ascii_uppercase))
"""Columns that are read; with options, `hint` is too."""


class TsvOptions(RowOptions):
    """Options of format `tsv`."""

    kind: str = "qa"
    """Kind of the records."""
    ask: str = "Please select the correct answer from the options above."
    """Text below the options of a row that has options."""
    without_image: Literal["drop", "keep"] = "drop"
    """Rows with an empty image: `drop` leaves them out, as VLMEvalKit does; `keep` reads them as
    text alone."""


class TsvSource:
    """Rows as records of one question and one answer.

    Three numbers per row stay in memory: its first byte, its line, and the first byte of the
    row that holds its image.
    """

    def __init__(self, path: Path, images: Path, options: TsvOptions) -> None:
        self._path = path
        self._images = images
        self._options = options
        digest = blake2b(options.model_dump_json().encode(), digest_size=8)
        self._columns, self._places = _index(path, options, digest)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return min(len(self._places), self._options.limit or len(self._places))

    def place(self, position: int) -> tuple[str, int]:
        """File and line of the record at `position`."""
        return str(self._path), int(self._places[position, 1])

    def __getitem__(self, position: int) -> Record:
        at, line, holder = map(int, self._places[position])
        row = self._row(at)
        try:
            refuse_keys(row)
            images = self._pictures(row, row if holder == at else self._row(holder))
            answer = _answer(row)
            text, shown = _placed(_question(row, self._options.ask), len(images))
            turns = (Turn("user", text), Turn("assistant", answer))
            # After `_placed`, which has replaced the numbered marks of this layout.
            refuse_marks(turns)
        except DataError as error:
            raise DataError(
                f"{self._path} line {line}, index {row['index']}: {error}", kind=error.kind
            ) from error
        unread = unread_keys(row, _READ | {"hint"} if _choices(row) else _READ)
        return Record(
            row["index"],
            turns,
            tuple(images[number] for number in shown),
            self._options.kind,
            unread + grounding_marks(turns),
        )

    def _row(self, at: int) -> Row:
        with self._path.open("rb") as file:
            file.seek(at)
            try:
                return dict(zip(self._columns, next(cell_reader(file), []), strict=True))
            except (csv.Error, ValueError) as error:
                raise DataError(
                    f"{self._path} changed at byte {at} ({error}); restart the run to read it",
                    kind="changed source",
                ) from error

    def _pictures(self, row: Row, holder: Row) -> list[Path | bytes]:
        """The row's images: from base64 in the row that holds them, else from `image_path`."""
        if holder.get("image"):
            return [decoded_image(cell) for cell in listed(holder["image"])]
        return [image_path(self._images, name) for name in listed(row.get("image_path", ""))]


def open_tsv(config: SourceConfig, folder: Path) -> TsvSource:
    """The questions in the file at `path`."""
    options = read_options(TsvOptions, config)
    if config.path is None or not (folder / config.path).is_file():
        raise DataError(f"path {config.path} is not a file; format tsv needs the table to read")
    path = folder / config.path
    return TsvSource(path, folder / config.images if config.images else path.parent, options)


def _index(path: Path, options: TsvOptions, digest: blake2b) -> tuple[list[str], NDArray[np.int64]]:
    """The columns, and int64[rows, 3]: a row's first byte, its line, and the first byte of the
    row that holds its image.
    """
    columns: list[str] = []
    places: list[tuple[int, int, str]] = []
    holders: dict[str, int] = {}
    for at, line, row in table_rows(path, digest):
        columns, name, image = list(row), row["index"], row.get("image", "")
        if name in holders:
            raise DataError(
                f"{path} line {line}: index {name} comes twice; expected each once: remove one"
            )
        # VLMEvalKit writes an image once; other rows about it hold that row's index in its
        # place.
        holds = len(image) > REFERENCE
        holders[name] = at if holds else -1
        if image or row.get("image_path") or options.without_image == "keep":
            places.append((at, line, "" if holds else image))
    found = [
        (at, line, at if not name else holder_of(holders, name, f"{path} line {line}"))
        for at, line, name in places
    ]
    return columns, np.array(found, dtype=np.int64).reshape(-1, 3)


def _answer(row: Row) -> str:
    """The answer, or the first of several."""
    answer = next(iter(listed(row.get("answer", "").strip())), "")
    if not answer:
        raise DataError(
            "no `answer`; expected one to learn: use a split whose answers are public", kind="turns"
        )
    return answer


def _choices(row: Row) -> str:
    """The row's options, a line each."""
    return "".join(f"{letter}. {row[letter]}\n" for letter in ascii_uppercase if row.get(letter))


def _question(row: Row, ask: str) -> str:
    """The question; with options, in the form of VLMEvalKit's default prompt."""
    choices = _choices(row)
    if not choices:
        return row["question"]
    hint = f"Hint: {row['hint']}\n" if row.get("hint") else ""
    return f"{hint}Question: {row['question']}\nOptions:\n{choices}{ask}"


def _placed(text: str, images: int) -> tuple[str, list[int]]:
    """The text with image marks, and the image of each mark: those that `<image k>` names, or
    all images before a text without such marks.
    """
    if IMAGE_MARK in text:
        raise DataError(
            f"the question contains {IMAGE_MARK}; expected plain text or numbered marks: remove"
            " the mark",
            kind="marks",
        )
    shown = [int(number) - 1 for number in _NUMBERED.findall(text)]
    if not shown:
        return f"{IMAGE_MARK}\n" * images + text, list(range(images))
    if not all(0 <= number < images for number in shown):
        raise DataError(
            f"the question shows image {max(shown) + 1} of {images}; expected marks from 1 to"
            f" {images}",
            kind="marks",
        )
    return _NUMBERED.sub(IMAGE_MARK, text), shown
