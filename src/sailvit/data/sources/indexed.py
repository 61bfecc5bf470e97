"""Shards with a manifest and an index: each record is one read, checked by its crc32, and
opening reads the manifest alone.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from posixpath import normpath
from typing import Annotated, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Record
from sailvit.data.caches import cache_folder
from sailvit.data.remote.cache import ShardCache
from sailvit.data.remote.requests import Access
from sailvit.data.remote.roots import RemoteFile, is_remote
from sailvit.data.rows.columns import column_record, row_crc32
from sailvit.data.rows.conversations import RecordOptions
from sailvit.data.rows.row import RowOptions, read_options
from sailvit.data.shards.files import Spans
from sailvit.data.shards.manifest import (
    COSTS,
    ENTRY,
    MANIFEST,
    Manifest,
    ShardMark,
    index_name,
    load_manifest,
    read_manifest,
)
from sailvit.data.shards.open_files import OpenFiles
from sailvit.data.sources.parquet import RowGroups
from sailvit.data.sources.webdataset import sample_in, sample_record

_AGAIN = "count them again: sailvit data index DIR --recipe RECIPE"


class IndexedOptions(RowOptions):
    """Options of format `indexed`."""

    cache_gb: Annotated[float, Field(gt=0)] = 100.0
    """Most GB of remote shards that stay on this machine."""
    public: bool = False
    """Whether the URL is that of a public bucket, which is read without credentials."""
    endpoint: str | None = None
    """URL of an S3-compatible server; None: `AWS_ENDPOINT_URL`, or AWS itself."""
    groups: Annotated[int, Field(ge=1)] = 2
    """Row groups of Parquet shards that each process keeps in memory."""


class Folder:
    """Files on this machine with the methods of a `ShardCache`. Size and checksum are not
    compared, as every record has a checksum.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened = OpenFiles()

    def path(self, name: str, *, size: int | None = None, crc32: int | None = None) -> Path:
        """The path of a file."""
        return self._folder / name

    def open(self, name: str, *, size: int | None = None, crc32: int | None = None) -> BinaryIO:
        """The file, open for reading."""
        return self.path(name).open("rb")

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        return self.path(name).read_bytes()

    def prefetch(self, shards: Iterable[RemoteFile]) -> None:
        """No-op, as the files are on this machine."""

    def stretch(self, shard: RemoteFile, start: int, size: int) -> bytes:
        """`size` bytes of a file from byte `start` on; fewer where it ends before."""
        return self._opened.read(f"{self._folder}/{shard.name}", start, size)


Files: TypeAlias = "Folder | ShardCache"
"""Where shards and indexes are read from."""


class IndexedSource:
    """Records of indexed shards, by position.

    Opening reads the manifest alone. A record costs one small read in the index and one in its
    shard; 8 bytes per shard stay in memory. With a missing or damaged shard the source opens,
    and the shard's records are bad.
    """

    def __init__(
        self,
        manifest: Manifest,
        options: IndexedOptions,
        *,
        files: Files,
        shards: Files,
        images: Path | None = None,
    ) -> None:
        self.manifest = manifest
        self._files = files
        self._shards = shards
        self._images = images
        reader = SourceConfig(format=manifest.format, options=manifest.options)
        self._options = read_options(RecordOptions, reader)
        self._spans = Spans([shard.samples for shard in manifest.shards], options.limit)
        self._groups = RowGroups(options.groups)
        self.fingerprint = _fingerprint(manifest, options)

    def __len__(self) -> int:
        return len(self._spans)

    @property
    def shards(self) -> Sequence[int]:
        """Records per shard."""
        return self._spans.lengths

    def counts(self, *, tokenizer: str, layout: str) -> NDArray[np.int32]:
        """Tokens and tiles of all records, int32[2, n], memory-mapped; DataError when they were
        counted with another tokenizer or layout.
        """
        measured = self.manifest.measured
        if measured is None:
            raise DataError("its tokens were not counted; " + _AGAIN, kind="counts")
        for what, found, values, wanted in (
            ("tokenizer", measured.tokenizer, measured.tokenizer_values, tokenizer),
            ("layout", measured.layout, measured.layout_values, layout),
        ):
            if found != wanted:
                told = ", ".join(f"{key} {value}" for key, value in values.items())
                raise DataError(
                    f"its tokens were counted with another {what} ({told}) than the recipe's;"
                    f" {_AGAIN}",
                    kind="counts",
                )
        path = self._files.path(COSTS, size=measured.costs.bytes, crc32=measured.costs.crc32)
        try:
            counts: NDArray[np.int32] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{path} cannot be read ({error}); index the folder again", kind="counts"
            ) from error
        if counts.shape != (2, self.manifest.samples) or counts.dtype != np.int32:
            raise DataError(
                f"{path} holds {counts.dtype}{list(counts.shape)}; expected"
                f" int32[2, {self.manifest.samples}]: index the folder again",
                kind="counts",
            )
        # `limit` takes the first records, so their counts are the first columns.
        return counts[:, : len(self)]

    def entry(self, position: int) -> tuple[ShardMark, np.void]:
        """The shard of a record, and its row in the index, an `ENTRY`."""
        number, inside = self._spans.find(position)
        shard = self.manifest.shards[number]
        index = _index_of(shard)
        try:
            # The file ends with its last row, so NumPy's header need not be parsed.
            start = shard.index.bytes - (shard.samples - inside) * ENTRY.itemsize
            return shard, np.frombuffer(self._files.stretch(index, start, ENTRY.itemsize), ENTRY)[0]
        except (OSError, IndexError, ValueError) as error:
            raise DataError(
                f"{index.name} has no row {inside} ({error}); index the folder again", kind="index"
            ) from error

    def place(self, position: int) -> tuple[str, int]:
        """Shard and offset of the record at `position`."""
        shard, entry = self.entry(position)
        return shard.name, int(entry["offset"])

    def fetch(self, shards: Sequence[int]) -> None:
        """Begin to fetch these shards and their indexes, in this order; no-op for shards on
        this machine.
        """
        lengths = self.shards
        marks = [self.manifest.shards[number] for number in shards if lengths[number]]
        self._files.prefetch(map(_index_of, marks))
        self._shards.prefetch(map(_whole, marks))

    def __getitem__(self, position: int) -> Record:
        shard, entry = self.entry(position)
        read = self._row if self.manifest.format == "parquet" else self._sample
        try:
            return read(shard, entry, position)
        except OSError as error:
            kind = "missing shard" if isinstance(error, FileNotFoundError) else "unreadable shard"
            raise DataError(
                f"{shard.name} cannot be read ({error.strerror}); put it back", kind=kind
            ) from error
        except DataError as error:
            raise DataError(
                f"{shard.name} at {entry['offset']}: {error}", kind=error.kind
            ) from error

    def _sample(self, shard: ShardMark, entry: np.void, position: int) -> Record:
        """The record in a part of a tar."""
        size = int(entry["size"])
        content = self._shards.stretch(_whole(shard), int(entry["offset"]), size)
        # crc32 finds cut copies and rotten disks for little time; it is no guard against
        # somebody who means harm.
        if len(content) != size or zlib.crc32(content) != entry["crc32"]:
            with self._shards.open(shard.name, size=shard.bytes, crc32=shard.crc32) as file:
                raise _changed(os.fstat(file.fileno()), shard)
        key, files = sample_in(content)
        name = f"{Path(shard.name).with_suffix('').as_posix()}/{key}"
        return sample_record(files, self._options, name=name, position=position)

    def _row(self, shard: ShardMark, entry: np.void, position: int) -> Record:
        """The record in a row of a Parquet file."""
        path = self._shards.path(shard.name, size=shard.bytes, crc32=shard.crc32)
        state = path.stat()
        try:
            fields = self._groups.row(path, int(entry["offset"]), int(entry["size"]))
        except DataError as error:
            raise _changed(state, shard) from error
        if row_crc32(fields) != entry["crc32"]:
            raise _changed(state, shard)
        folder = path.parent if self._images is None else self._images
        left = self._groups.left(path, int(entry["offset"]))
        return column_record(fields, self._options, folder=folder, position=position, left=left)


def open_indexed(config: SourceConfig, folder: Path) -> IndexedSource:
    """The shards of the folder or URL at `path`, which holds a manifest."""
    options = read_options(IndexedOptions, config)
    if config.path is None:
        raise DataError(
            "no `path`; format indexed needs a folder that `sailvit data prepare` or `index`"
            " wrote, or a URL"
        )
    if is_remote(config.path):
        return _open_remote(config.path, options)
    top = folder / config.path
    manifest = load_manifest(top)
    images = folder / config.images if config.images else None
    if images is None and manifest.images is not None:
        images = top / manifest.images
    return IndexedSource(
        manifest, options, files=Folder(top), shards=Folder(top / manifest.root), images=images
    )


def _open_remote(url: str, options: IndexedOptions) -> IndexedSource:
    url = url.rstrip("/") + "/"
    limit, access = (
        int(options.cache_gb * 1e9),
        Access(public=options.public, endpoint=options.endpoint),
    )
    files = ShardCache(url, cache_folder("shards"), limit=limit, access=access)
    manifest = read_manifest(files.read(MANIFEST), url + MANIFEST)
    shards = files
    if manifest.root != ".":
        shards = ShardCache(
            _beside(url, manifest.root), cache_folder("shards"), limit=limit, access=access
        )
    return IndexedSource(manifest, options, files=files, shards=shards)


def _whole(mark: ShardMark) -> RemoteFile:
    """The shard itself as a file."""
    return RemoteFile(mark.name, mark.bytes, mark.crc32)


def _index_of(mark: ShardMark) -> RemoteFile:
    """The shard's index as a file."""
    return RemoteFile(index_name(mark.name), mark.index.bytes, mark.index.crc32)


def _beside(url: str, root: str) -> str:
    """The URL that the relative path `root` leads to from `url`, whatever its scheme."""
    # Not urljoin: of schemes that it does not know, as s3, it gives the relative path alone.
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}/{normpath(f'{path}/{root}').lstrip('/')}"


def _fingerprint(manifest: Manifest, options: IndexedOptions) -> str:
    """Hash of the shards and of the options that read them, without token counts."""
    digest = blake2b(
        # Counting tokens again, for another recipe, leaves the data what they were: runs can
        # resume.
        json.dumps([manifest.format, manifest.options, options.limit]).encode(),
        digest_size=8,
    )
    for shard in manifest.shards:
        digest.update(
            f"{shard.name}\0{shard.samples}\0{shard.bytes}\0{shard.crc32}\0{shard.index.crc32}".encode()
        )
    return digest.hexdigest()


def _changed(found: os.stat_result, shard: ShardMark) -> DataError:
    """The error for a shard in which a record differs from what was indexed."""
    # Sizes and times first: they tell a cut copy from an edited file, which a checksum cannot.
    if found.st_size < shard.bytes:
        kind, what = "cut shard", f"it ends after {found.st_size} of {shard.bytes} bytes"
    elif found.st_size > shard.bytes or (
        shard.modified is not None and found.st_mtime_ns != shard.modified
    ):
        lengths = (
            "other bytes, as many as then"
            if found.st_size == shard.bytes
            else f"{found.st_size} bytes, then {shard.bytes}"
        )
        kind, what = "changed shard", f"it was changed after it was indexed ({lengths})"
    else:
        kind, what = "crc", "its bytes are not those that were indexed"
    return DataError(f"{what}; put the right file back, or index the folder again", kind=kind)
