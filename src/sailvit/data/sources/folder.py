"""A folder of images with captions beside them, or in a `metadata.jsonl` or `metadata.csv`."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Record
from sailvit.data.file_tree import files_below
from sailvit.data.rows.conversations import RecordOptions, row_record
from sailvit.data.rows.image_refs import image_path
from sailvit.data.rows.row import RowFile, read_options
from sailvit.data.shards.files import Faults
from sailvit.data.sources.detect import IMAGES, TABLES
from sailvit.data.sources.webdataset import sample_row

SIDECARS = (".json", ".caption", ".txt")
"""Endings of captions beside their image: .json holds an object with turns, `caption` or
`text`, the others plain text."""


class FolderOptions(RecordOptions):
    """Options of format `folder`."""

    without_caption: Literal["drop", "error"] = "drop"
    """Images without a caption: `drop` leaves them out and counts them, `error` refuses the
    source."""


class Names(Sequence[str]):
    """Strings in one array of bytes: a million paths of 40 characters take 48 MB, in a list 90
    MB.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])
        for name in names:
            self._bytes += name.encode(errors="surrogateescape")
            self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        """The string at a place."""
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode(
            errors="surrogateescape"
        )


class FolderSource:
    """Images with captions beside them as records, sorted by path.

    Paths stay in memory, some 50 MB for a million images. Captions are read with their record.
    """

    def __init__(self, folder: Path, options: FolderOptions) -> None:
        faults = Faults()
        self._folder = folder
        self._options = options
        self._names = Names(_captioned(folder, options, faults))
        faults.refuse_nothing_left(len(self._names))
        self.faults = faults.all()
        """The images that were left out for want of a caption: a fault with their number."""

    def __len__(self) -> int:
        return min(len(self._names), self._options.limit or len(self._names))

    def __getitem__(self, position: int) -> Record:
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} of {len(self)}")
        name = self._names[position]
        image = self._folder / name
        # As the files of a tar's sample, so that both formats honour the same.
        row = sample_row({place.suffix[1:]: _content(place) for place in _sidecars(image)})
        try:
            return row_record(
                row, (image,), self._options, name=str(row.get("id") or name), position=position
            )
        except DataError as error:
            raise DataError(f"captions beside {image}: {error}", kind=error.kind) from error

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the options, and of paths and sizes of images and captions, so that a copy of
        the folder has the same.
        """
        digest = blake2b(self._options.model_dump_json().encode(), digest_size=8)
        for name in self._names:
            digest.update(name.encode(errors="surrogateescape"))
            for place in (self._folder / name, *_sidecars(self._folder / name)):
                # Sizes and not times, which a copy need not keep.
                digest.update(f"\0{place.suffix}{_size(place)}".encode())
        return digest.hexdigest()


class TableSource:
    """Rows of `metadata.jsonl` or `metadata.csv` as records; `file_name` names the image, as in
    Hugging Face data sets.
    """

    def __init__(self, rows: RowFile | CsvFile, folder: Path, options: FolderOptions) -> None:
        self._rows = rows
        self._folder = folder
        self._options = options
        self.fingerprint = rows.fingerprint

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> Record:
        row = self._rows[position]
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise DataError(
                f"found keys {', '.join(row) or 'none'}; expected `file_name`, the path of an image"
            )
        images = (image_path(self._folder, name),)
        return row_record(
            row,
            images,
            self._options,
            name=str(row.get("id") or name),
            position=position,
            read=("file_name",),
        )


class CsvFile:
    """Rows of a CSV file, held in memory as bytes."""

    def __init__(self, path: Path, options: FolderOptions) -> None:
        self._path = path
        self._limit = options.limit
        try:
            # csv itself finds the ends of rows, as cells may hold line breaks.
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file)
                self._columns = next(reader, [])
                checked = (
                    _checked(row, self._columns, f"{path} line {reader.line_num}")
                    for row in reader
                    if row
                )
                self._cells = Names(cell for row in checked for cell in row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"{path} is no table ({error}); expected cells parted by commas, in UTF-8"
            ) from error
        digest = blake2b(options.model_dump_json().encode(), digest_size=8)
        digest.update(path.read_bytes())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        found = len(self._cells) // max(1, len(self._columns))
        return min(found, self._limit or found)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The row at `position`, without its empty cells."""
        first = position * len(self._columns)
        cells = (self._cells[first + index] for index in range(len(self._columns)))
        return {column: cell for column, cell in zip(self._columns, cells, strict=True) if cell}


def open_folder(config: SourceConfig, folder: Path) -> FolderSource | TableSource:
    """The images in the folder at `path`, with captions from its table, or from files beside
    them when it has none.
    """
    options = read_options(FolderOptions, config)
    path = folder / (config.path or "")
    if config.path is None or not path.is_dir():
        raise DataError(
            f"path {config.path} is no folder; format folder needs one with images",
            kind="missing file",
        )
    tables = [path / name for name in TABLES if (path / name).is_file()]
    if not tables:
        return FolderSource(path, options)
    table = tables[0]
    rows = (
        CsvFile(table, options)
        if table.suffix == ".csv"
        else RowFile(_at(config, table), folder, options)
    )
    return TableSource(rows, path, options)


def _at(config: SourceConfig, path: Path) -> SourceConfig:
    return config.model_copy(update={"path": str(path.absolute())})


def _captioned(folder: Path, options: FolderOptions, faults: Faults) -> Iterator[str]:
    """Paths of the images with captions, sorted; images without become a fault or an error."""
    names = set(files_below(folder))
    for name in sorted(name for name in names if PurePosixPath(name).suffix.lower() in IMAGES):
        stem = name[: name.rindex(".")]
        if any(stem + ending in names for ending in SIDECARS):
            yield name
            continue
        endings = ", ".join(SIDECARS)
        reason = (
            f"image {name} has no caption beside it; expected one of the same name ending in"
            f" {endings}"
        )
        if options.without_caption == "error":
            raise DataError(
                f"{folder}: {reason}: write it, or set without_caption: drop", kind="no caption"
            )
        faults.add(folder, None, "no caption", f"{reason}: it is left out")


def _size(path: Path) -> int | None:
    """Bytes of a file; None: it cannot be found, which is told when its record is read."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _sidecars(image: Path) -> list[Path]:
    """The captions beside an image."""
    return [place for ending in SIDECARS if (place := image.with_suffix(ending)).is_file()]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); check its rights", kind="missing file"
        ) from error


def _checked(cells: list[str], columns: list[str], where: str) -> list[str]:
    if len(cells) != len(columns) or "file_name" not in columns:
        raise DataError(
            f"{where} has {len(cells)} cells for the columns {', '.join(columns)[:200]};"
            " expected `file_name` among them and one cell per column"
        )
    return cells
