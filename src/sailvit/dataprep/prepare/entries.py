"""Builds the index of one shard, and writes the files that a folder's index consists of."""

from __future__ import annotations

import io
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sailvit.core.atomic import whole_file
from sailvit.core.bad_records import BadRecord
from sailvit.core.config import Config
from sailvit.core.errors import DataError
from sailvit.core.records import Record
from sailvit.data.processing.images import image_size
from sailvit.data.processing.processor import Processor
from sailvit.data.rows.keys import count_unread
from sailvit.data.shards.manifest import ENTRY, FileMark, ShardMark, index_name

_MOST_TILES = int(np.iinfo(ENTRY["tiles"]).max)
_MOST_KINDS = 255
"""Most kinds in one shard: an entry has one byte for its kind."""
_BLOCK = 1 << 20
"""Bytes read at once."""


class ShardResult(Config):
    """A finished shard."""

    mark: ShardMark
    """The shard's part of the manifest."""
    bad: list[BadRecord]
    """Records that were left out of it."""


class Entries:
    """Rows of `ENTRY` for the records of one shard."""

    def __init__(self, processor: Processor | None) -> None:
        self._processor = processor
        self._rows: list[tuple[int, ...]] = []
        self.kinds: dict[str, int] = {}
        """Number of records by kind."""
        self.unread = Counter[str]()
        """Number of records by unread key."""

    def __len__(self) -> int:
        return len(self._rows)

    def facts(self, record: Record) -> dict[str, int]:
        """Image sizes and counts of a record, by the names of `ENTRY`; of images only headers
        are read.
        """
        sizes = [image_size(image) for image in record.images]
        count_unread(self.unread, record.unread)
        # An entry has room for one size: that of the largest image.
        width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
        facts = {"width": width, "height": height, "images": len(sizes)}
        if self._processor is not None:
            tokens, tiles = self._processor.cost(record)
            text = tokens - tiles * self._processor.layout.tokens_per_tile
            # More tiles than their column holds fit no pack either.
            facts.update(tokens=tokens, tiles=min(tiles, _MOST_TILES), text=text)
        return facts

    def add(self, kind: str, *, offset: int, size: int, crc32: int, facts: dict[str, int]) -> None:
        """Append the row of a record that lies at `offset`."""
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if len(self.kinds) > _MOST_KINDS:
            raise DataError(
                f"found more than {_MOST_KINDS} kinds of records in one shard; `kind` is a class of"
                " tasks such as ocr, not a name of records",
                kind="kind",
            )
        # A kind is kept as its place in the manifest's `kinds`, which are in order of
        # appearance.
        row = {
            **facts,
            "offset": offset,
            "size": size,
            "crc32": crc32,
            "kind": list(self.kinds).index(kind),
        }
        self._rows.append(tuple(row.get(name, 0) for name in ENTRY.names or ()))

    def write(
        self, folder: Path, shard: str, file: FileMark, *, modified: int | None = None
    ) -> ShardMark:
        """Write the index of `shard` below `folder`; returns its part of the manifest."""
        index = io.BytesIO()
        np.save(index, np.array(self._rows, ENTRY), allow_pickle=False)
        return ShardMark(
            name=shard,
            bytes=file.bytes,
            crc32=file.crc32,
            samples=len(self),
            kinds=self.kinds,
            index=write_whole(folder / index_name(shard), index.getvalue()),
            unread=dict(self.unread.most_common()),
            modified=modified,
        )


def write_costs(path: Path, indexes: Iterable[Path], records: int) -> FileMark:
    """Write the tokens and tiles of all indexes as one int32[2, n], with one index at a time in
    memory.
    """
    with whole_file(path) as part:
        # A file without a row cannot be mapped.
        file: Any = (
            np.lib.format.open_memmap(part, mode="w+", dtype=np.int32, shape=(2, records))
            if records
            else None
        )
        at = 0
        for index in indexes:
            entries = np.load(index, allow_pickle=False)
            file[:, at : at + len(entries)] = entries["tokens"], entries["tiles"]
            at += len(entries)
        if file is None:
            np.save(part.open("wb"), np.zeros((2, 0), np.int32), allow_pickle=False)
        else:
            file.flush()
    return mark_of(path)


def write_whole(path: Path, content: bytes) -> FileMark:
    """Write a file all at once: a crash leaves the previous one as it was."""
    with whole_file(path) as part:
        part.write_bytes(content)
    return FileMark(bytes=len(content), crc32=zlib.crc32(content))


def mark_of(path: Path) -> FileMark:
    """Length and checksum of a file."""
    crc32 = size = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc32 = zlib.crc32(block, crc32)
            size += len(block)
    return FileMark(bytes=size, crc32=crc32)
