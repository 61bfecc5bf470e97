"""WebDataset shards: tars whose members share a key, `<key>.jpg` with `<key>.txt` or `<key>.json`."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Record
from sailvit.data.formats.conversations import RecordOptions, row_record
from sailvit.data.formats.rows import read_options
from sailvit.data.formats.shards import Spans, shard_names, shard_paths

_IMAGE = re.compile(r"(?:(\d+)\.)?(?:jpg|jpeg|png|webp)")
"""Endings of images. A number before it orders several of one sample; `seg.png` is no such image and not read."""
_DAMAGE = (tarfile.TarError, ValueError, OverflowError, OSError)
"""What `tarfile` raises on damaged headers."""


class WebDatasetSource:
    """Records of tar shards, by position.

    Only the byte offset of each sample's first header is kept (8 bytes per sample). A read opens the shard there and
    walks the headers of that sample; members with other endings are skipped over and never read.
    """

    def __init__(self, paths: list[Path], options: RecordOptions) -> None:
        digest = blake2b(options.model_dump_json().encode(), digest_size=8)
        self._paths = paths
        self._names = shard_names(paths)
        digest.update("\0".join(self._names).encode())
        self._offsets = [_index(path, digest) for path in paths]
        self._spans = Spans([len(offsets) for offsets in self._offsets], options.limit)
        self._options = options
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, position: int) -> Record:
        shard, inside = self._spans.find(position)
        path, at = self._paths[shard], int(self._offsets[shard][inside])
        try:
            key, files = _read_sample(path, at)
            row = _row(files)
            ordered = sorted((int(match[1] or 0), end) for end in files if (match := _IMAGE.fullmatch(end)))
            images = tuple(files[end] for _, end in ordered)
            return row_record(row, images, self._options, name=f"{self._names[shard]}/{key}", position=position)
        except DataError as error:
            raise DataError(f"{path} at byte {at}: {error}") from error


def open_webdataset(config: SourceConfig, folder: Path) -> WebDatasetSource:
    """The samples of the tars that `path` names: one tar, a folder, or a glob."""
    options = read_options(RecordOptions, config)
    return WebDatasetSource(shard_paths(config, folder, ".tar"), options)


def _index(path: Path, digest: blake2b) -> NDArray[np.int64]:
    """Where the samples of a shard start; the digest takes every member's name, offset and size."""
    offsets: list[int] = []
    seen: set[str] = set()
    names: set[str] = set()
    last = None
    with path.open("rb") as file:
        for member in _members(file, path, 0):
            digest.update(f"{member.name}\0{member.offset_data}\0{member.size}\0".encode(errors="surrogateescape"))
            key, ending = _split(_checked(member, path))
            if not key:
                continue
            if key != last:
                names.clear()
            if ending in names or (key != last and key in seen):
                raise DataError(
                    f"{path}: member {member.name!r} comes twice, or apart from others of its key; expected the members"
                    " of a key once and together: write the shard anew"
                )
            if key != last:
                offsets.append(member.offset)
            names.add(ending)
            seen.add(key)
            last = key
    return np.array(offsets, dtype=np.int64)


def _members(file: IO[bytes], path: Path, start: int) -> Iterator[tarfile.TarInfo]:
    """The members of a tar from the header at byte `start`; DataError when it is damaged or has no end."""
    file.seek(start)
    at = start
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                if tar.offset < member.offset_data:
                    raise tarfile.ReadError("negative size")
                yield member
                at = tar.offset
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("no end mark")
    except _DAMAGE as error:
        raise DataError(
            f"{path} is cut or damaged at byte {at} ({error}); expected a complete tar, not compressed: fetch it again"
        ) from error


def _checked(member: tarfile.TarInfo, path: Path) -> tarfile.TarInfo:
    plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) and not member.issparse()
    inside = not member.name.startswith("/") and ".." not in PurePosixPath(member.name).parts
    if not plain or not inside:
        found = f"has type {member.type!r}" if inside else "leads out of the shard"
        raise DataError(
            f"{path}: member {member.name!r} {found}; expected plain files with relative names:"
            " remove it from the shard"
        )
    return member


def _split(member: tarfile.TarInfo) -> tuple[str, str]:
    """Key and ending of a member, parted at the first dot of its file name; folders and hidden files have no key."""
    folder, slash, name = member.name.removeprefix("./").rpartition("/")
    stem, _, ending = name.partition(".")
    return (f"{folder}{slash}{stem}" if stem and member.isfile() else ""), ending.lower()


def _read_sample(path: Path, at: int) -> tuple[str, dict[str, bytes]]:
    """Key and files, by ending, of the sample whose first header stands at byte `at`."""
    first = None
    files: dict[str, bytes] = {}
    with path.open("rb") as file:
        for member in _members(file, path, at):
            key, ending = _split(_checked(member, path))
            first = first or key
            if key != first and key:
                break
            if key and (ending in ("txt", "json") or _IMAGE.fullmatch(ending)):
                files[ending] = _content(file, member)
    return first or "", files


def _content(file: IO[bytes], member: tarfile.TarInfo) -> bytes:
    file.seek(member.offset_data)
    content = file.read(member.size)
    if len(content) != member.size:
        raise DataError(
            f"{member.name} ends after {len(content)} of {member.size} bytes; expected the shard as it was when opened:"
            " fetch it again and restart"
        )
    return content


def _row(files: dict[str, bytes]) -> dict[str, Any]:
    """The fields of a sample: its JSON, and its text where that has neither turns nor a caption."""
    try:
        row = json.loads(files.get("json", b"{}"))
        text = files["txt"].decode() if "txt" in files else None
    except (ValueError, RecursionError) as error:
        raise DataError(f"its text cannot be read ({error}); expected JSON, or text as UTF-8") from error
    if not isinstance(row, dict):
        raise DataError(f"its JSON holds {type(row).__name__}; expected an object")
    fields = {name: value for name, value in row.items() if value is not None}
    if text is not None and not {"conversations", "messages", "caption", "text"} & fields.keys():
        fields["text"] = text
    return fields
