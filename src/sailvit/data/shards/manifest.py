"""The manifest of prepared or indexed shards, `sailvit.json`, and the index beside it.

    sailvit.json            shards, options of their reader, what counted the tokens, how it was made
    shard-000000.tar, ...   the shards: plain tars (webdataset) or Parquet files
    index/<shard>.npy       one row of `ENTRY` per record, in the order of the shard
    costs.npy               int32[2, records]: tokens and tiles of all records, where they were counted
    bad.jsonl               records that were left out, and why

All arrays are plain NumPy files; nothing is pickled.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError, field_validator

from sailvit.core.config import Config
from sailvit.core.errors import DataError

MANIFEST = "sailvit.json"
"""Name of the manifest."""
UNFINISHED = ".prepare"
"""Folder with the state of a preparation that is not complete."""
COSTS = "costs.npy"
"""Name of the file of all token and tile counts."""
VERSION = 1
"""Version of manifest and index; only this one is read."""

# Little-endian whatever the machine, as folders of shards move between them.
ENTRY = np.dtype(
    [
        ("offset", "<i8"),  # tar: byte of the record's first header; Parquet: its row group
        ("size", "<i8"),  # tar: bytes up to the next record; Parquet: its row inside the group
        (
            "crc32",
            "<u4",
        ),  # tar: of these bytes; Parquet: of the row as JSON, images replaced by their own crc32
        ("width", "<u4"),  # of its largest image, upright, in pixels; 0 without image
        ("height", "<u4"),
        ("images", "<u2"),  # number of images
        ("tiles", "<u2"),  # of all images, up to 65,535; 0 where nothing was counted
        ("text", "<u4"),  # tokens without placeholders
        ("tokens", "<u4"),  # all tokens, uncut
        ("kind", "u1"),  # place in the shard's `kinds`
    ]
)
"""A row of the index: 41 bytes per record."""


class FileMark(Config):
    """Size and checksum that a file must have."""

    bytes: int
    """Its size in bytes."""
    crc32: int
    """Its checksum."""


class ShardMark(FileMark):
    """One shard, and its index."""

    name: str
    """Path below the manifest's `root`."""
    samples: int
    """Records in it."""
    kinds: dict[str, int]
    """Records of each kind; an entry's `kind` is a place in this order."""
    index: FileMark
    """The file `index/<name>.npy`."""
    unread: dict[str, int] = {}
    """Keys that hold a value in its rows, or in those it was made from, and were not read, with
    their numbers of records."""
    modified: int | None = None
    """When the shard was last changed, in ns since 1970; None: sailvit wrote it, and its crc32
    shows changes."""

    @field_validator("name")
    @classmethod
    def _inside(cls, name: str) -> str:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{name!r} leads out of the folder")
        return name


class Measured(Config):
    """What counted the tokens and tiles."""

    tokenizer: str
    """Fingerprint of the tokenizer."""
    layout: str
    """Fingerprint of the visual layout."""
    tokenizer_values: dict[str, Any]
    """Name and size of the tokenizer, for people."""
    layout_values: dict[str, Any]
    """Settings of the layout, for people."""
    costs: FileMark
    """The file `costs.npy`."""


class Manifest(Config):
    """Everything about a folder of shards."""

    version: int = VERSION
    """Version of this file and of the index."""
    format: Literal["webdataset", "parquet"]
    """Format of the shards."""
    root: str = "."
    """Folder of the shards, relative to that of the manifest."""
    images: str | None = None
    """Folder that relative image paths in Parquet rows start from; None: that of the shard."""
    options: dict[str, Any] = {}
    """Options of the format's reader."""
    samples: int
    """Records in all shards."""
    bad: int = 0
    """Records left out; `bad.jsonl` lists them."""
    shards: list[ShardMark]
    """In order of position."""
    empty: list[ShardMark] = []
    """Shards without a record; they are noted so that they are read again only if they change."""
    measured: Measured | None = None
    """Set where tokens and tiles were counted."""
    made: dict[str, Any] = {}
    """Command, version and sources, for people."""

    @property
    def unread(self) -> dict[str, int]:
        """Keys of all shards that were not read, with how many records hold them."""
        counts = Counter[str]()
        for shard in self.shards:
            counts.update(shard.unread)
        return dict(counts.most_common())


def index_name(shard: str) -> str:
    """Path of a shard's index below the manifest's folder."""
    return f"index/{shard}.npy"


def refuse_unfinished(folder: Path) -> None:
    """DataError for a folder in which only a part of the shards is written."""
    if (folder / UNFINISHED).exists():
        raise DataError(
            f"{folder} holds an unfinished preparation; finish it with the command that began it",
            kind="manifest",
        )


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a folder; DataError when it is missing, damaged or of another version."""
    refuse_unfinished(folder)
    path = folder / MANIFEST
    try:
        return read_manifest(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); expected a folder of `sailvit data"
            " prepare` or `index`",
            kind="manifest",
        ) from error


def read_manifest(content: bytes, name: str) -> Manifest:
    """The manifest in a file's bytes; errors call the file `name`."""
    again = "write it anew with `sailvit data prepare` or `sailvit data index`"
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not JSON ({error}); {again}", kind="manifest") from error
    version = found.get("version") if isinstance(found, dict) else None
    if version != VERSION:
        raise DataError(
            f"{name} has version {version}; this program reads {VERSION}: {again}", kind="manifest"
        )
    try:
        return Manifest.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{name} does not hold together at {where} ({first['msg']}); {again}", kind="manifest"
        ) from error
