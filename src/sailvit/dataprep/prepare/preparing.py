"""Writes sources as plain WebDataset tars with a manifest and an index, shard by shard, with
several processes.

Finished shards are noted in `.prepare/`, so that a killed run continues where it stopped. The
bytes that are written depend on the sources and settings alone: neither on the number of
processes nor on interruptions.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from sailvit.core.atomic import whole_file
from sailvit.core.bad_records import UNUSABLE, BadRecord, bad_record
from sailvit.core.config import Config
from sailvit.core.errors import DataError
from sailvit.core.ownership import others
from sailvit.core.records import ImageLike, Record, Source, faults_of, place_of
from sailvit.core.run import read_json, write_json
from sailvit.data.lengths.fingerprints import VERSION, digest
from sailvit.data.lengths.measuring import cost_basis
from sailvit.data.process_pool import map_ordered
from sailvit.data.processing.images import load_image
from sailvit.data.processing.processor import Processor
from sailvit.data.shards.manifest import (
    MANIFEST,
    UNFINISHED,
    FileMark,
    Manifest,
    ShardMark,
    index_name,
    load_manifest,
)
from sailvit.dataprep.prepare.cluster import map_on_cluster
from sailvit.dataprep.prepare.entries import Entries, ShardResult
from sailvit.dataprep.prepare.folders import complete, counted_by
from sailvit.dataprep.prepare.members import END, sample_files, tar_bytes

Workers: TypeAlias = int | Literal["ray"]
"""Number of processes on this machine, or those of a Ray cluster."""

_LOOKED_AT = 64
"""Records whose mean size decides how many make a shard."""


class PlannedShard(NamedTuple):
    """A shard to write."""

    name: str
    """Its file's name."""
    source: str
    """Name of the source whose records it holds."""
    start: int
    """Position of its first record."""
    stop: int
    """Position after its last record."""
    first: int
    """Number of its first record over all sources; numbers are the keys in the tars."""


class PrepareConfig(Config):
    """How sources are written as shards."""

    shard_bytes: int = 256_000_000
    """Approximate size of a shard in bytes. Sizes are estimated from a few records, so that
    shards can be written at the same time."""
    shard_samples: int | None = None
    """Records per shard; None: as many as `shard_bytes` gives."""
    decode: bool = False
    """Whether every image is decoded, so that damaged ones are found now; false: only its
    header is read."""


@dataclass(frozen=True)
class ShardWriter:
    """Writes shards; it is sent to the processes of a pool."""

    sources: Mapping[str, Source]
    """Sources by name."""
    out: Path
    """Folder of the shards."""
    processor: Processor | None
    """Counts tokens and tiles; None: the index has neither."""
    decode: bool
    """Whether images are decoded."""

    def write(self, shard: PlannedShard) -> ShardResult:
        """Write a shard and its index, then note that both are finished."""
        entries, bad = Entries(self.processor), list[BadRecord]()
        path = self.out / shard.name
        size = crc32 = 0
        try:
            with whole_file(path) as part, part.open("wb") as file:
                for content in self._samples(shard, entries, bad):
                    crc32 = zlib.crc32(content, crc32)
                    size += file.write(content)
            mark = entries.write(self.out, shard.name, FileMark(bytes=size, crc32=crc32))
        except OSError as error:
            raise DataError(
                f"{path} cannot be written ({error.strerror}); free some space on the disk and run"
                " the command again: it continues there"
            ) from error
        result = ShardResult(mark=mark, bad=bad)
        write_json(_note(self.out, shard), result.model_dump())
        return result

    def _samples(
        self, shard: PlannedShard, entries: Entries, bad: list[BadRecord]
    ) -> Iterator[bytes]:
        """The bytes of every sample, then the end of the tar."""
        source, at = self.sources[shard.source], 0
        for position in range(shard.start, shard.stop):
            record = None
            try:
                record = source[position]
                content = self._sample(record, shard, position, entries, at)
            except UNUSABLE as error:
                name, place = record.id if record else None, place_of(source, position)
                bad.append(bad_record(shard.source, position, error, name=name, place=place))
                continue
            yield content
            at += len(content)
        yield END

    def _sample(
        self, record: Record, shard: PlannedShard, position: int, entries: Entries, at: int
    ) -> bytes:
        """The bytes of one sample, which is added to the index."""
        # Ids are unique within a source only.
        if len(self.sources) > 1:
            record = replace(record, id=f"{shard.source}/{record.id}")
        files = sample_files(record)
        # All but the last, the JSON. What is written is measured, as its kind may have changed.
        held: tuple[ImageLike, ...] = tuple(file.content for file in files[:-1])
        facts = entries.facts(replace(record, images=held))
        if self.decode:
            for image in held:
                load_image(image)
        content = tar_bytes(f"{shard.first + position - shard.start:09d}", files)
        entries.add(
            record.kind, offset=at, size=len(content), crc32=zlib.crc32(content), facts=facts
        )
        return content


def prepare(
    sources: Mapping[str, Source],
    out: Path,
    *,
    config: PrepareConfig | None = None,
    processor: Processor | None = None,
    workers: Workers = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Write the records of `sources` as tars into `out`, or continue a killed call; returns the
    manifest of what was written.

    If a `processor` is given, tokens and tiles are counted too. Bad records are left out and
    listed in `bad.jsonl`. `progress` is called with the records done, and of how many.
    """
    config = config or PrepareConfig()
    shards = plan_shards(sources, config)
    identity = _identity(sources, shards, config, processor)
    if (out / MANIFEST).exists():
        return _finished(out, identity)
    _begin(out, identity)
    marks = list(
        _write(
            ShardWriter(sources, out, processor, config.decode),
            shards,
            workers=workers,
            progress=progress,
        )
    )
    bad = chain(
        _faults(sources), (record for shard in shards for record in _read_note(out, shard).bad)
    )
    origins = [
        {"name": name, "records": len(s), "fingerprint": s.fingerprint}
        for name, s in sources.items()
    ]
    made = {"command": "prepare", "identity": identity, "sources": origins}
    counted = None if processor is None else counted_by(processor)
    manifest = complete(
        out, marks, bad, counted=counted, settings={"format": "webdataset", "made": made}
    )
    _clear(out, marks)
    return manifest


def _faults(sources: Mapping[str, Source]) -> Iterator[BadRecord]:
    """What the sources left out when they opened."""
    for name, source in sources.items():
        yield from (replace(fault, reason=str(fault)) for fault in faults_of(source, name))


def _write(
    writer: ShardWriter,
    shards: list[PlannedShard],
    *,
    workers: int | Literal["ray"],
    progress: Callable[[int, int], None] | None,
) -> Iterator[ShardMark]:
    """Marks of all shards, in order: of those that an earlier run has finished, and of others
    as they are written.
    """
    kept = {shard: mark for shard in shards if (mark := _kept(writer.out, shard)) is not None}
    missing = (shard for shard in shards if shard not in kept)
    written = (
        map_on_cluster(writer.write, missing)
        if workers == "ray"
        else map_ordered(writer.write, missing, workers=workers)
    )
    done, total = 0, sum(map(len, writer.sources.values()))
    for shard in shards:
        yield kept.get(shard) or next(written).mark
        done += shard.stop - shard.start
        if progress is not None:
            progress(done, total)


def plan_shards(sources: Mapping[str, Source], config: PrepareConfig) -> list[PlannedShard]:
    """The shards to write, in order; each holds records of one source."""
    shards: list[PlannedShard] = []
    first = 0
    for name, source in sources.items():
        each_holds = config.shard_samples or max(1, config.shard_bytes // _mean_bytes(source))
        for start in range(0, len(source), each_holds):
            stop = min(start + each_holds, len(source))
            shards.append(
                PlannedShard(f"shard-{len(shards):06d}.tar", name, start, stop, first + start)
            )
        first += len(source)
    return shards


def _mean_bytes(source: Source) -> int:
    """Mean bytes of a record, estimated from records spread over the source."""
    sizes = []
    for position in (
        sorted(set(np.linspace(0, len(source) - 1, _LOOKED_AT, dtype=int).tolist()))
        if len(source)
        else ()
    ):
        try:
            files = sample_files(source[position])
        # Listed when it is written: here only a size is estimated.
        except UNUSABLE:
            continue
        sizes.append(sum(len(file.content) for file in files))
    # Never 0, as it divides.
    return 1 + sum(sizes) // max(1, len(sizes))


def _identity(
    sources: Mapping[str, Source],
    shards: list[PlannedShard],
    config: PrepareConfig,
    processor: Processor | None,
) -> str:
    """Hash of everything that the output depends on."""
    content = [(name, source.fingerprint) for name, source in sources.items()]
    basis = None if processor is None else cost_basis(processor)
    # The shards and not the sizes asked for, which matter by the shards that they give.
    return digest([VERSION, content, shards, config.decode, basis])


def _finished(out: Path, identity: str) -> Manifest:
    """The existing manifest; DataError if another one would be written."""
    manifest = load_manifest(out)
    if manifest.made.get("identity") != identity:
        raise DataError(
            f"{out} already holds shards that were made from other sources or with other settings;"
            " choose another folder, or remove this one"
        )
    return manifest


def _begin(out: Path, identity: str) -> None:
    """Note what is written to the folder; DataError if it holds anything else."""
    note = out / UNFINISHED / "identity.json"
    if note.exists():
        if read_json(note) != identity:
            raise DataError(
                f"{out} holds an unfinished preparation of other sources or settings; repeat that"
                " command to finish it, choose another folder, or remove this one"
            )
        return
    try:
        found = others(out) if out.exists() else []
    except OSError as error:
        raise DataError(
            f"{out} cannot be used ({error.strerror}); expected a folder or none"
        ) from error
    # A call that was killed before its first note leaves the empty folder of notes.
    if set(found) - {UNFINISHED}:
        raise DataError(
            f"{out} holds {found[0]} and more; expected an empty folder, or none: choose another"
        )
    write_json(note, identity)


def _note(out: Path, shard: PlannedShard) -> Path:
    return out / UNFINISHED / f"{shard.name}.json"


def _read_note(out: Path, shard: PlannedShard) -> ShardResult:
    return ShardResult.model_validate(read_json(_note(out, shard)))


def _kept(out: Path, shard: PlannedShard) -> ShardMark | None:
    """The mark of a shard that an earlier run has finished; None: it must be written."""
    if not _note(out, shard).exists():
        return None
    mark = _read_note(out, shard).mark
    # By size alone: checksums would need every finished shard read again.
    files = ((out / shard.name, mark.bytes), (out / index_name(shard.name), mark.index.bytes))
    whole = all(path.is_file() and path.stat().st_size == size for path, size in files)
    return mark if whole else None


def _clear(out: Path, marks: list[ShardMark]) -> None:
    """Remove the notes, and shards without records."""
    for mark in marks:
        if not mark.samples:
            (out / mark.name).unlink(missing_ok=True)
            (out / index_name(mark.name)).unlink(missing_ok=True)
    shutil.rmtree(out / UNFINISHED)
