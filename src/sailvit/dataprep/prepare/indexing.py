"""Indexes existing tars or Parquet files, which are read once and never written."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sailvit.core.bad_records import UNUSABLE, BadRecord, bad_record
from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.run import write_json
from sailvit.data.file_tree import files_below
from sailvit.data.process_pool import map_ordered
from sailvit.data.processing.processor import Processor
from sailvit.data.rows.conversations import RecordOptions
from sailvit.data.rows.row import read_options
from sailvit.data.shards.files import shard_paths
from sailvit.data.shards.manifest import Manifest, ShardMark, refuse_unfinished
from sailvit.data.sources.detect import detect
from sailvit.dataprep.prepare.entries import Entries, ShardResult, mark_of
from sailvit.dataprep.prepare.existing import ExistingShard, open_shard
from sailvit.dataprep.prepare.folders import complete, counted_by
from sailvit.dataprep.prepare.renewal import (
    WORK,
    IndexConfig,
    bad_of,
    before,
    begin,
    current,
    note,
    put_back,
    still_counted,
    up_to_date,
)

_SUFFIXES = {"webdataset": ".tar", "parquet": ".parquet"}
"""Endings of shards, by the formats that can be indexed."""


@dataclass(frozen=True)
class Indexer:
    """Indexes shards; it is sent to the processes of a pool."""

    config: IndexConfig
    """What is indexed, and how."""
    processor: Processor | None
    """Counts tokens and tiles; None: neither is counted."""

    def index(self, name: str) -> ShardResult:
        """Read a shard and write its index."""
        config = self.config
        path = config.root / name
        options = read_options(
            RecordOptions, SourceConfig(format=config.format, options=config.options)
        )
        shard = open_shard(path, config.format, options, config.images)
        entries, bad = Entries(self.processor), list[BadRecord]()
        if isinstance(shard, DataError):
            bad.append(bad_record(name, None, shard))
        else:
            bad += [replace(fault, source=name, shard=None) for fault in shard.faults]
            self._fill(entries, shard, name, bad)
        modified = path.stat().st_mtime_ns
        mark = entries.write(config.out, name, mark_of(path), modified=modified)
        result = ShardResult(mark=mark, bad=bad)
        write_json(note(config.out, name), result.model_dump())
        return result

    def _fill(
        self, entries: Entries, shard: ExistingShard, name: str, bad: list[BadRecord]
    ) -> None:
        for position in range(len(shard)):
            record = None
            try:
                record, offset, size, crc32 = shard[position]
                facts = entries.facts(record)
                entries.add(record.kind, offset=offset, size=size, crc32=crc32, facts=facts)
            except UNUSABLE as error:
                bad.append(bad_record(name, position, error, name=record.id if record else None))


def index_config(
    folder: Path, *, out: Path | None = None, images: Path | None = None, kind: str | None = None
) -> IndexConfig:
    """What to index below `folder`, by the manifest that it has, or else by the files in it."""
    refuse_unfinished(folder)
    options = {} if kind is None else {"kind": kind}
    old = before(out or folder)
    if old is None:
        return IndexConfig(
            root=folder, out=out or folder, format=_format(folder), images=images, options=options
        )
    root, out = (folder, out) if out else (folder / old.root, folder)
    if images is None and old.images is not None:
        images = out / old.images
    return IndexConfig(
        root=root, out=out, format=old.format, images=images, options={**old.options, **options}
    )


def _format(folder: Path) -> str:
    for name, suffix in _SUFFIXES.items():
        if any(name.endswith(suffix) for name in files_below(folder, hidden=True)):
            return name
    raise DataError(
        f"{folder} holds no tars and no Parquet files but data of format"
        f" {detect(folder).format}; write it as tars with `sailvit data prepare`"
    )


def index(
    config: IndexConfig,
    *,
    processor: Processor | None = None,
    workers: int = 0,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Write the index and manifest of the shards below `config.root`; if a `processor` is
    given, tokens and tiles are counted too.

    Shards that are already indexed and have not changed are not read again, unless `force` is
    set; nor are shards that a killed run has finished. Bad records are left out of the index
    and listed in `bad.jsonl`. `progress` is called with the shards done, and of how many.
    """
    names, old = _names(config), before(config.out)
    counted = None if processor is None else counted_by(processor)
    known = {} if force else current(config, old, counted)
    changed = [name for name in names if name not in known]
    if old is not None and not force:
        if up_to_date(old, names, changed):
            return put_back(config.out, old)
        counted = counted or still_counted(old, changed)
    begin(config, counted)
    written = map_ordered(Indexer(config, processor).index, changed, workers=workers)
    marks = list(_marks(names, known, written, progress))
    bad = bad_of(config.out, names, old)
    manifest = complete(config.out, marks, bad, counted=counted, settings=config.settings(old))
    # Last, as a killed call goes on from the notes in it.
    shutil.rmtree(config.out / WORK)
    return manifest


def _marks(
    names: list[str],
    known: Mapping[str, ShardMark],
    written: Iterator[ShardResult],
    progress: Callable[[int, int], None] | None,
) -> Iterator[ShardMark]:
    """Marks of all shards, in order: known ones, and others as they are written."""
    for done, name in enumerate(names, start=1):
        # Both follow the order of `names`, so the next one that is written is this one.
        yield known.get(name) or next(written).mark
        if progress is not None:
            progress(done, len(names))


def _names(config: IndexConfig) -> list[str]:
    source = SourceConfig(format=config.format, path=str(config.root))
    paths = shard_paths(source, Path(), _SUFFIXES[config.format])
    if gone := [path for path in paths if not path.exists()]:
        raise DataError(
            f"{gone[0]} is a link to a file that is not there (of {len(gone)} such links); an index says"
            " what shards hold: put the files back, or remove the links"
        )
    return [path.relative_to(config.root).as_posix() for path in paths]
