"""What an earlier index knows: which shards have not changed since, and which records were left
out of them.

While a run renews an index, the old manifest and a note of every finished shard are kept in
`.index/`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sailvit.core.bad_records import BadRecord
from sailvit.core.config import Config
from sailvit.core.errors import DataError
from sailvit.core.run import read_json, write_json
from sailvit.data.lengths.fingerprints import VERSION, digest
from sailvit.data.shards.manifest import (
    COSTS,
    MANIFEST,
    Manifest,
    ShardMark,
    index_name,
    load_manifest,
)
from sailvit.dataprep.prepare.entries import ShardResult, mark_of
from sailvit.dataprep.prepare.folders import BAD, read_bad

WORK = ".index"
"""Folder of an unfinished run's notes."""
IDENTITY = "identity.json"
"""Name of the note that says what that run indexes."""


class IndexConfig(Config):
    """What is indexed, and how."""

    root: Path
    """Folder of the shards."""
    out: Path
    """Folder of the manifest and the index; often the same folder."""
    format: str
    """`webdataset` or `parquet`."""
    images: Path | None = None
    """Folder that image paths in Parquet rows start from; None: the shard's own folder."""
    options: dict[str, Any] = {}
    """Options of the format's reader: `kind`, `prompts`."""

    def settings(self, old: Manifest | None) -> dict[str, Any]:
        """The manifest's fields that do not come from shards; a folder that `data prepare`
        wrote keeps its origin.
        """
        prepared = old is not None and old.made.get("command") == "prepare"
        return {
            "format": self.format,
            "root": os.path.relpath(self.root, self.out),
            "images": None if self.images is None else os.path.relpath(self.images, self.out),
            "options": self.options,
            "made": old.made if old is not None and prepared else {"command": "index"},
        }


def before(out: Path) -> Manifest | None:
    """The folder's manifest, or the one that a killed run was about to replace."""
    for folder in (out, out / WORK):
        if (folder / MANIFEST).exists():
            return load_manifest(folder)
    return None


def current(
    config: IndexConfig, old: Manifest | None, counted: dict[str, Any] | None
) -> dict[str, ShardMark]:
    """Marks of the shards whose index is up to date, by name."""
    marks: list[ShardMark] = []
    if old is not None and _fits(old, config, counted):
        marks += [*old.shards, *old.empty]
    if _noted_identity(config.out) == _identity(config, counted):
        marks += [_read_note(path).mark for path in _notes(config.out)]
    return {mark.name: same for mark in marks if (same := _unchanged(config, mark)) is not None}


def up_to_date(old: Manifest, names: list[str], changed: list[str]) -> bool:
    """Whether a new manifest would be the same as the old one."""
    empty = {mark.name for mark in old.empty}
    full = [mark.name for mark in old.shards]
    return not changed and empty <= set(names) and full == [n for n in names if n not in empty]


def _fits(old: Manifest, config: IndexConfig, counted: dict[str, Any] | None) -> bool:
    """Whether an index was made with the same settings and counts as are wanted now."""
    settings = config.settings(old)
    # Not `root`: whether the shards are the same is told by sizes, times and checksums.
    same = all(getattr(old, field) == settings[field] for field in ("format", "images", "options"))
    # Nothing is counted now, so counts by any recipe may stay.
    if counted is None:
        return same
    measured = old.measured
    return (
        same
        and measured is not None
        and all(getattr(measured, field) == counted[field] for field in ("tokenizer", "layout"))
    )


def _unchanged(config: IndexConfig, mark: ShardMark) -> ShardMark | None:
    """The mark of a shard that has not changed since it was indexed; None: it has."""
    path, index_file = config.root / mark.name, config.out / index_name(mark.name)
    if not path.is_file() or not index_file.is_file() or path.stat().st_size != mark.bytes:
        return None
    if index_file.stat().st_size != mark.index.bytes:
        return None
    modified = path.stat().st_mtime_ns
    # A copy of the shard has another time: its checksum decides.
    if modified != mark.modified and mark_of(path).crc32 != mark.crc32:
        return None
    return mark.model_copy(update={"modified": modified})


def still_counted(old: Manifest, changed: list[str]) -> dict[str, Any] | None:
    """What the tokens were counted with, kept when nothing is counted now; None: they were not
    counted. DataError if changed shards would have no counts beside others that have.
    """
    if old.measured is None:
        return None
    if changed:
        raise DataError(
            f"{changed[0]} is new or changed, and the other shards have token counts; give the"
            " --recipe that they were counted with, or --force to index all without counts"
        )
    return old.measured.model_dump(exclude={"costs"})


def _identity(config: IndexConfig, counted: dict[str, Any] | None) -> str:
    basis = None if counted is None else [counted["tokenizer"], counted["layout"]]
    return digest([VERSION, config.model_dump(mode="json"), basis])


def begin(config: IndexConfig, counted: dict[str, Any] | None) -> None:
    """Move the manifest aside, as it no longer fits once index files change, and delete notes
    of a run with other settings.

    DataError, before anything is written, if the folder holds files of the same names that
    belong to no index.
    """
    _refuse_foreign(config.out)
    work, identity = config.out / WORK, _identity(config, counted)
    if _noted_identity(config.out) != identity:
        for path in _notes(config.out):
            path.unlink()
    write_json(work / IDENTITY, identity)
    if (config.out / MANIFEST).exists():
        (config.out / MANIFEST).replace(work / MANIFEST)


def _refuse_foreign(out: Path) -> None:
    if (out / MANIFEST).exists() or (out / WORK / IDENTITY).exists():
        return
    names = (BAD, COSTS, "index", WORK)
    if found := [name for name in names if (out / name).exists()]:
        raise DataError(
            f"{out} holds {', '.join(found)}, which no index of ours wrote and an index would"
            " overwrite; move that elsewhere, or give another folder with --out"
        )


def put_back(out: Path, manifest: Manifest) -> Manifest:
    """Move the manifest back to its place, as nothing had to be indexed."""
    if not (out / MANIFEST).exists():
        write_json(out / MANIFEST, manifest.model_dump())
    shutil.rmtree(out / WORK, ignore_errors=True)
    return manifest


def _noted_identity(out: Path) -> str | None:
    path = out / WORK / IDENTITY
    return str(read_json(path)) if path.exists() else None


def _notes(out: Path) -> list[Path]:
    """Notes of the shards that an unfinished run has finished."""
    return sorted((out / WORK / "shards").rglob("*.json"))


def note(out: Path, name: str) -> Path:
    """Path of the note that keeps a shard's result until all shards are finished."""
    return out / WORK / "shards" / f"{name}.json"


def _read_note(path: Path) -> ShardResult:
    return ShardResult.model_validate(read_json(path))


def bad_of(out: Path, names: list[str], old: Manifest | None) -> Iterator[BadRecord]:
    """All records that are left out: of unchanged shards as listed before, of others as found
    now.
    """
    renewed = {name for name in names if note(out, name).exists()}
    if old is not None:
        gone = {mark.name for mark in (*old.shards, *old.empty)} - set(names)
        yield from (record for record in read_bad(out) if record.source not in renewed | gone)
    for name in names:
        if name in renewed:
            yield from _read_note(note(out, name)).bad
