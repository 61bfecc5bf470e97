"""WebDataset shards: tars in which the files of a sample share a key, `<key>.jpg` with
`<key>.txt` or `<key>.json`.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sailvit.core.errors import DataError, one_line
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Record
from sailvit.data.rows.conversations import RecordOptions, row_record
from sailvit.data.rows.row import read_options
from sailvit.data.rows.turns import has_turns
from sailvit.data.shards.files import Faults, Spans, shard_names, shard_paths
from sailvit.data.shards.tars import (
    DamageError,
    Stamp,
    content_of,
    members,
    plain_files,
    stamp_of,
    wrong,
)

_TEXTS = ("txt", "json")
_IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp")
_IMAGE = re.compile(rf"(?:(\d+)\.)?(?:{'|'.join(_IMAGE_ENDINGS)})")
"""Endings of images; a number before them orders several of one sample. Others, as `seg.png`,
are not read."""
_RULE = (
    "A name up to its first dot is a sample's key, and the rest its ending; expected .jpg, .jpeg,"
    " .png or .webp with .txt or .json, and .0.jpg, .1.jpg, ... for several images. Names with more"
    " dots need something else in their place: scan_0_v1_5.png"
)
"""WebDataset's rule for the files of a sample, for messages."""
_PICKLES = frozenset(("pkl", "pickle", "pyd", "pt", "pth", "joblib"))
"""Endings of files that other readers unpickle, which runs code in them."""


class Files(dict[str, bytes]):
    """The files of a sample by ending, and the endings of its files that were not read."""

    def __init__(self, read: Iterable[tuple[str, bytes]] = (), skipped: Iterable[str] = ()) -> None:
        super().__init__(read)
        self.skipped = tuple(dict.fromkeys(skipped))
        """Endings such as `cls`, `npy` or `seg.png`."""


class WebDatasetSource:
    """Records of tar shards, by position.

    Only the byte offset of each sample's first header is kept (8 bytes per sample). A read
    opens the shard there and goes through the headers of the sample; members with other endings
    are skipped. Damage that is found when the shards open becomes a fault: the samples before
    it in its shard are used, and so are all other shards.
    """

    def __init__(self, paths: list[Path], options: RecordOptions) -> None:
        digest = blake2b(options.model_dump_json().encode(), digest_size=8)
        self._paths = paths
        self._names = shard_names(paths)
        digest.update("\0".join(self._names).encode())
        faults = Faults()
        indexes = [_index(path, digest, faults) for path in paths]
        self._stamps = [stamp for stamp, _ in indexes]
        self._offsets = [offsets for _, offsets in indexes]
        self._spans = Spans([len(offsets) for offsets in self._offsets], options.limit)
        faults.refuse_nothing_left(len(self._spans))
        self._options = options
        self.faults = faults.all()
        """What was left out when the shards were opened."""
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._spans)

    @property
    def shards(self) -> tuple[int, ...]:
        """Records per shard."""
        return self._spans.lengths

    def place(self, position: int) -> tuple[str, int]:
        """Shard and byte offset of the record at `position`."""
        shard, inside = self._spans.find(position)
        return str(self._paths[shard]), int(self._offsets[shard][inside])

    def __getitem__(self, position: int) -> Record:
        shard, inside = self._spans.find(position)
        path, at = self._paths[shard], int(self._offsets[shard][inside])
        try:
            key, files = _read_shard(path, at, self._stamps[shard])
            return sample_record(
                files, self._options, name=f"{self._names[shard]}/{key}", position=position
            )
        except DataError as error:
            raise DataError(f"{path} at byte {at}: {error}", kind=error.kind) from error


def open_webdataset(config: SourceConfig, folder: Path) -> WebDatasetSource:
    """The samples of the tars at `path`: one tar, those in a folder, or those of a glob."""
    options = read_options(RecordOptions, config)
    return WebDatasetSource(shard_paths(config, folder, ".tar"), options)


def read_sample(file: IO[bytes], at: int) -> tuple[str, Files]:
    """Key and files of the sample whose first header is at byte `at`; of two files with one
    ending the first counts.
    """
    first = ""
    files: dict[str, bytes] = {}
    skipped: list[str] = []
    for member in members(file, at):
        key, ending = _split(member.name) if member.isfile() and wrong(member) is None else ("", "")
        first = first or key
        if not key:
            continue
        if key != first:
            break
        if not _is_read(ending):
            skipped.append(ending)
        elif ending not in files:
            files[ending] = content_of(file, member)
    return first, Files(files.items(), skipped)


def sample_in(content: bytes) -> tuple[str, Files]:
    """Key and files of the sample in a part of a tar whose checksum was right."""
    members = plain_files(content)
    if members is None:
        # `members` needs the end of a tar, two blocks of zeros.
        return read_sample(io.BytesIO(content + bytes(2 * tarfile.BLOCKSIZE)), 0)
    named = [(*_split(name), place) for name, place in members]
    first = next((key for key, _, _ in named if key), "")
    # Of two files with one ending the first counts, so it is put in last.
    own = [(end, place) for key, end, place in named if key == first and key]
    read = ((end, content[place]) for end, place in reversed(own) if _is_read(end))
    return first, Files(read, (end for end, _ in own if not _is_read(end)))


def sample_record(files: Files, options: RecordOptions, *, name: str, position: int) -> Record:
    """The record of a sample's files: its images in order of their numbers, its JSON, its text.

    Its name is its `id`, else `name`.
    """
    images = tuple(files[ending] for ending in _numbered(files))
    row = sample_row(files)
    try:
        record = row_record(row, images, options, name=str(row.get("id", name)), position=position)
    except DataError as error:
        if files.skipped and error.kind in ("turns", "marks"):
            raise _endings(files, str(error), kind=error.kind) from error
        raise
    left = tuple(f".{ending}" for ending in files.skipped)
    return replace(record, unread=(*record.unread, *left)) if left else record


def _numbered(files: Files) -> list[str]:
    """Endings of a sample's images in their order; DataError when two have the same number."""
    numbered: dict[int, str] = {}
    for ending in files:
        if match := _IMAGE.fullmatch(ending):
            number = int(match[1] or 0)
            if number in numbered:
                raise _endings(files, f".{numbered[number]} and .{ending} both may be its image")
            numbered[number] = ending
    return [ending for _, ending in sorted(numbered.items())]


def _endings(files: Files, reason: str, *, kind: str = "endings") -> DataError:
    """The error for a sample, with the reason and the endings of all its files."""
    endings = (*files, *files.skipped)
    found = ", ".join(f".{ending}" for ending in endings)
    rule = f". {_RULE}" if kind == "endings" or any("." in ending for ending in endings) else ""
    return DataError(f"{reason}. Its files end in {one_line(found, 200)}{rule}", kind=kind)


class _Samples:
    """Collects the samples of one shard from its members, one after the other."""

    def __init__(self, path: Path, faults: Faults) -> None:
        self._path = path
        self._faults = faults
        self._keys: set[str] = set()
        self._endings: set[str] = set()
        self._last = ""
        self._taken = False
        self.offsets: list[int] = []

    def add(self, member: tarfile.TarInfo) -> None:
        """Add a member to its sample; one that must not be read becomes a fault."""
        if damage := wrong(member):
            self._faults.add(self._path, member.offset, *damage)
            return
        key, ending = _split(member.name) if member.isfile() else ("", "")
        if not key:
            return
        if key != self._last:
            self.finish()
            self._start(key, member.offset)
        if not self._taken or ending in self._endings:
            reason = (
                f"member {member.name!r} comes twice, or apart from others of its key; expected"
                " the members of a key once and together: the later ones are left out"
            )
            self._faults.add(self._path, member.offset, "duplicate", reason)
        elif ending in _PICKLES:
            reason = f"member {member.name!r} may hold a pickle, which runs code when it loads: it is never opened"
            self._faults.add(self._path, member.offset, "pickle", reason)
        self._endings.add(ending)

    def finish(self) -> None:
        """End the current sample; it is left out when its files look like several samples."""
        stems = _stems(self._endings) if self._taken else []
        if not stems:
            return
        offset, self._taken = self.offsets.pop(), False
        found = ", ".join(f".{ending}" for ending in sorted(self._endings))
        reason = (
            f"key {one_line(self._last, 100)!r} has files ending in {one_line(found, 200)}, which"
            f" look like samples of their own: {', '.join(stems[:8])}. {_RULE}. None of them is used"
        )
        for _ in stems:
            self._faults.add(self._path, offset, "endings", reason)

    def drop_last(self) -> str:
        """Drop the last sample, as members of it may be lost; returns its key, empty without
        any.
        """
        if self.offsets:
            self.offsets.pop()
        return self._last

    def _start(self, key: str, offset: int) -> None:
        self._taken = key not in self._keys
        if self._taken:
            self._keys.add(key)
            self.offsets.append(offset)
        self._last = key
        self._endings = set()


def _index(path: Path, digest: blake2b, faults: Faults) -> tuple[Stamp, NDArray[np.int64]]:
    """A shard's stamp, and where its samples start; name, offset and size of every member go
    into the digest.
    """
    samples = _Samples(path, faults)
    stamp: Stamp = (-1, -1)
    try:
        with path.open("rb") as file:
            stamp = stamp_of(file)
            for member in members(file, 0):
                digest.update(
                    # Headers alone, as reading all contents would take as long as an epoch.
                    f"{member.name}\0{member.offset_data}\0{member.size}\0".encode(
                        errors="surrogateescape"
                    )
                )
                samples.add(member)
        samples.finish()
    except DamageError as error:
        last = samples.drop_last()
        reason = f"{error}; the samples before it are used" + (
            f", without the last one, {last}" if last else ""
        )
        faults.add(path, error.offset, "cut shard", reason)
    except OSError as error:
        faults.add(
            path,
            None,
            "missing shard",
            f"it cannot be read ({error.strerror}); check its place and rights",
        )
    digest.update(str(len(samples.offsets)).encode())
    return stamp, np.array(samples.offsets, dtype=np.int64)


def _stems(endings: Iterable[str]) -> list[str]:
    """Beginnings of endings that look like samples of their own, as `v1.5` in `v1.5.png` with
    `v1.5.txt`; empty where a text has a plain ending.
    """
    parts = [ending.rpartition(".") for ending in endings]
    texts, images = (
        {stem for stem, _, last in parts if last in kinds} for kinds in (_TEXTS, _IMAGE_ENDINGS)
    )
    # One sample may have several named images, but not a text for each of them.
    return sorted((texts & images) - {""}) if "" not in texts else []


def _split(path: str) -> tuple[str, str]:
    """Key and ending of a file, split at the first dot of its name; hidden files have no key."""
    folder, slash, name = path.removeprefix("./").rpartition("/")
    stem, _, ending = name.partition(".")
    return (f"{folder}{slash}{stem}" if stem else ""), ending.lower()


def _read_shard(path: Path, at: int, stamp: Stamp) -> tuple[str, Files]:
    """Key and files of the sample at byte `at`; DataError when the shard has changed since it
    was opened.
    """
    try:
        with path.open("rb") as file:
            if stamp_of(file) != stamp:
                raise DataError(
                    "the shard changed since it was opened; restart the run to read it",
                    kind="changed shard",
                )
            return read_sample(file, at)
    except OSError as error:
        raise DataError(
            f"the shard cannot be read ({error.strerror}); put it back", kind="missing shard"
        ) from error


def _is_read(ending: str) -> bool:
    return ending in _TEXTS or _IMAGE.fullmatch(ending) is not None


def sample_row(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The fields of a sample: its JSON, and its text if that has neither turns nor caption; a
    text that differs from all fields becomes a field of its own, to be listed.
    """
    try:
        row = json.loads(files.get("json", b"{}"))
        # A byte order mark is no blank, and would be learnt as a word.
        texts = {end: files[end].decode("utf-8-sig") for end in ("txt", "caption") if end in files}
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"its text cannot be read ({error}); expected JSON, or text as UTF-8", kind="text"
        ) from error
    if not isinstance(row, dict):
        raise DataError(f"its JSON holds {type(row).__name__}; expected an object", kind="text")
    fields = {name: value for name, value in row.items() if value is not None}
    for ending, text in texts.items():
        if not has_turns(fields) and not {"caption", "text"} & fields.keys():
            fields["text"] = text
        elif text.strip() not in (v.strip() for v in fields.values() if isinstance(v, str)):
            fields[f".{ending}"] = text
    return fields
