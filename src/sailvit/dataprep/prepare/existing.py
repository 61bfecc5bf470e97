"""Reads shards that other programs wrote, record by record, with each record's place and
checksum.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from sailvit.core.bad_records import BadRecord
from sailvit.core.errors import DataError
from sailvit.core.records import Record
from sailvit.data.rows.columns import column_record, row_crc32
from sailvit.data.rows.conversations import RecordOptions
from sailvit.data.shards.tars import DamageError, members
from sailvit.data.sources.parquet import ParquetOptions, ParquetSource, RowGroups
from sailvit.data.sources.webdataset import WebDatasetSource, read_sample, sample_record


class Found(NamedTuple):
    """A record in a shard, with its place as the index has it."""

    record: Record
    """The record itself."""
    offset: int
    """As in `ENTRY`."""
    size: int
    """As in `ENTRY`."""
    crc32: int
    """As in `ENTRY`."""


class ExistingShard(Protocol):
    """A shard that is indexed."""

    faults: tuple[BadRecord, ...]
    """What is wrong with the shard as a whole."""

    def __len__(self) -> int:
        """Number of records."""

    def __getitem__(self, position: int) -> Found:
        """The record at `position`; DataError when it cannot be used."""


class TarShard:
    """One tar."""

    def __init__(self, path: Path, options: RecordOptions, images: Path | None) -> None:
        source = WebDatasetSource([path], options)
        self.faults = source.faults
        starts = [source.place(position)[1] for position in range(len(source))]
        self._bounds = [*starts, _end(path, starts[-1])] if starts else []
        self._path = path
        self._options = options

    def __len__(self) -> int:
        return max(0, len(self._bounds) - 1)

    def __getitem__(self, position: int) -> Found:
        start, stop = self._bounds[position : position + 2]
        with self._path.open("rb") as file:
            file.seek(start)
            content = file.read(stop - start)
        # Two blocks of zeros end a tar: the sample is read as a tar of its own.
        key, files = read_sample(io.BytesIO(content + bytes(2 * tarfile.BLOCKSIZE)), 0)
        record = sample_record(files, self._options, name=key, position=position)
        return Found(record, start, stop - start, zlib.crc32(content))


class ParquetShard:
    """One Parquet file."""

    def __init__(self, path: Path, options: RecordOptions, images: Path | None) -> None:
        self._source = ParquetSource([path], images, ParquetOptions(**options.model_dump()))
        self.faults = self._source.faults
        # Rows are read in order, so one group in memory is enough.
        self._groups = RowGroups(1)
        self._path = path
        self._folder = images or path.parent
        self._options = options

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, position: int) -> Found:
        group, row = self._source.group(position)
        fields = self._groups.row(self._path, group, row)
        left = self._groups.left(self._path, group)
        record = column_record(
            fields, self._options, folder=self._folder, position=position, left=left
        )
        return Found(record, group, row, row_crc32(fields))


READERS: dict[str, Callable[[Path, RecordOptions, Path | None], ExistingShard]] = {
    "webdataset": TarShard,
    "parquet": ParquetShard,
}
"""Readers of shards, by the manifest's `format`."""


def open_shard(
    path: Path, kind: str, options: RecordOptions, images: Path | None
) -> ExistingShard | DataError:
    """The shard at `path`, or the error if nothing in it can be read."""
    try:
        return READERS[kind](path, options, images)
    except DataError as error:
        return error


def _end(path: Path, start: int) -> int:
    """Offset of the byte after the last whole member of a tar."""
    end = start
    with path.open("rb") as file:
        try:
            for member in members(file, start):
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        except DamageError:
            return end
    return end
