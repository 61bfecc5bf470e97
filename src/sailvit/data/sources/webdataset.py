"""WebDataset shards: tars in which the files of a sample share a key, `<key>.jpg` with
`<key>.txt` or `<key>.json`.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

from sailvit.core.errors import DataError, one_line
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Record
from sailvit.data.rows.conversations import RecordOptions, row_record
from sailvit.data.rows.row import read_options
from sailvit.data.rows.turns import has_turns
from sailvit.data.shards.files import Faults, Spans, shard_names, shard_paths
from sailvit.data.shards.samples import IMAGE, RULE, index_samples, is_read, split_name
from sailvit.data.shards.tars import (
    Stamp,
    content_of,
    members,
    plain_files,
    stamp_of,
    wrong,
)


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
        indexes = [index_samples(path, digest, faults) for path in paths]
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
        key, ending = (
            split_name(member.name) if member.isfile() and wrong(member) is None else ("", "")
        )
        first = first or key
        if not key:
            continue
        if key != first:
            break
        if not is_read(ending):
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
    named = [(*split_name(name), place) for name, place in members]
    first = next((key for key, _, _ in named if key), "")
    # Of two files with one ending the first counts, so it is put in last.
    own = [(end, place) for key, end, place in named if key == first and key]
    read = ((end, content[place]) for end, place in reversed(own) if is_read(end))
    return first, Files(read, (end for end, _ in own if not is_read(end)))


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
        if match := IMAGE.fullmatch(ending):
            number = int(match[1] or 0)
            if number in numbered:
                raise _endings(files, f".{numbered[number]} and .{ending} both may be its image")
            numbered[number] = ending
    return [ending for _, ending in sorted(numbered.items())]


def _endings(files: Files, reason: str, *, kind: str = "endings") -> DataError:
    """The error for a sample, with the reason and the endings of all its files."""
    endings = (*files, *files.skipped)
    found = ", ".join(f".{ending}" for ending in endings)
    rule = f". {RULE}" if kind == "endings" or any("." in ending for ending in endings) else ""
    return DataError(f"{reason}. Its files end in {one_line(found, 200)}{rule}", kind=kind)


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
