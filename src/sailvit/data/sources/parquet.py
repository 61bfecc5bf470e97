"""Parquet files with images and texts in columns, in the layout of Hugging Face datasets."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Record
from sailvit.data.rows.columns import COLUMNS, DAMAGE, arrow, column_record, known_columns
from sailvit.data.rows.conversations import RecordOptions
from sailvit.data.rows.row import read_options
from sailvit.data.shards.files import Faults, shard_names, shard_paths
from sailvit.data.sources.column_files import ColumnFiles


class ParquetOptions(RecordOptions):
    """Options of format `parquet`."""

    groups: Annotated[int, Field(ge=1)] = 2
    """Most recently used row groups that each process keeps in memory."""


class RowGroups:
    """Row groups of Parquet files; the most recently used ones stay in memory."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[tuple[Path, int], Any] = {}
        self._left: dict[tuple[Path, int], tuple[str, ...]] = {}

    def left(self, path: Path, group: int) -> tuple[str, ...]:
        """Columns of a row group that are not read and, by its footer, not empty."""
        if (path, group) not in self._left:
            with arrow("pyarrow.parquet").ParquetFile(path) as file:
                self._left[path, group] = _left(file.metadata.row_group(group))
        return self._left[path, group]

    def row(self, path: Path, group: int, row: int) -> dict[str, Any]:
        """The fields of one row, in plain Python values."""
        try:
            fields: dict[str, Any] = self._group(path, group).slice(row, 1).to_pylist()[0]
        except DAMAGE as error:
            raise DataError(
                f"{path} is damaged in row group {group} ({error}); expected readable pages:"
                " fetch it again",
                kind="damaged shard",
            ) from error
        return fields

    def __getstate__(self) -> dict[str, Any]:
        # A worker reads its own groups; pickled tables would be copied to every one of them.
        return {**self.__dict__, "_kept": {}, "_left": {}}

    def _group(self, path: Path, group: int) -> Any:
        """The table of a row group, read without threads, as these do not survive a fork."""
        table = self._kept.pop((path, group), None)
        if table is None:
            # Before reading, so that no more than `most` groups are in memory at any time.
            while len(self._kept) >= self._most:
                del self._kept[next(iter(self._kept))]
            # Off by default: it finds flipped bits in pages that were written with checksums.
            with arrow("pyarrow.parquet").ParquetFile(
                path, page_checksum_verification=True
            ) as file:
                columns = known_columns(file.schema_arrow.names, path)
                table = file.read_row_group(group, columns=columns, use_threads=False)
                self._left[path, group] = _left(file.metadata.row_group(group))
        self._kept[path, group] = table
        return table


class ParquetSource(ColumnFiles):
    """Rows of Parquet files as records, by position.

    A read costs the row's whole group, unless that is still in memory. Footers are read when
    the source opens; 16 bytes per row group stay in memory.
    """

    def __init__(self, paths: list[Path], images: Path | None, options: ParquetOptions) -> None:
        digest = blake2b(
            (options.model_dump_json() + "\0".join(shard_names(paths))).encode(), digest_size=8
        )
        faults = Faults()
        sizes = [_group_sizes(path, digest, faults) for path in paths]
        self._images = images
        self._options = options
        self._groups = RowGroups(options.groups)
        found = digest.hexdigest()
        super().__init__(paths, sizes, options.limit, faults=faults, fingerprint=found)

    def group(self, position: int) -> tuple[int, int]:
        """Row group of the record at `position`, counted over all files, and the row in it."""
        return self._rows.find(position)

    def __getitem__(self, position: int) -> Record:
        group, row = self._rows.find(position)
        file, inside = self._files.find(group)
        path = self._paths[file]
        fields = self._groups.row(path, inside, row)
        return column_record(
            fields,
            self._options,
            folder=self._images or path.parent,
            position=position,
            left=self._groups.left(path, inside),
        )


def open_parquet(config: SourceConfig, folder: Path) -> ParquetSource:
    """The rows of the files at `path`: one file, those in a folder, or those of a glob."""
    options = read_options(ParquetOptions, config)
    images = folder / config.images if config.images else None
    return ParquetSource(shard_paths(config, folder, ".parquet"), images, options)


def _left(group: Any) -> tuple[str, ...]:
    """Columns of a row group that are not read, except those of nulls alone."""
    left: dict[str, None] = {}
    for index in range(group.num_columns):
        column = group.column(index)
        name, nulls = column.path_in_schema.split(".")[0], column.statistics
        # Writers may leave statistics out; a column without them is taken to hold something.
        empty = nulls is not None and nulls.has_null_count and nulls.null_count == column.num_values
        if name not in COLUMNS and not empty:
            left[name] = None
    return tuple(left)


def _group_sizes(path: Path, digest: blake2b, faults: Faults) -> list[int]:
    """Rows per row group; empty for a file that cannot be read.

    The footer, with sizes, offsets and statistics of all columns, goes into the digest.
    """
    parquet = arrow("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            known_columns(file.schema_arrow.names, path)
            footer = file.metadata
            sizes = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        with path.open("rb") as raw:
            # Behind the footer stand its length and the format's mark, four bytes each.
            raw.seek(-footer.serialized_size - 8, 2)
            digest.update(raw.read())
    except DAMAGE as error:
        reason = (
            f"no readable Parquet file ({error}); fetch it again, or correct `path`: it is left out"
        )
        faults.add(path, None, "damaged shard", reason)
        digest.update(b"unreadable")
        return []
    return sizes
