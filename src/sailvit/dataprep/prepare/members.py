"""Writes a record as members of a tar: its images, byte for byte, and its turns as JSON."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from typing import Any

from sailvit.core.errors import DataError
from sailvit.core.records import ImageLike, Record
from sailvit.data.processing.images import load_image
from sailvit.data.rows.conversations import conversation_record
from sailvit.dataprep.llava_rows import encoded, png, turn_flags

END = bytes(2 * tarfile.BLOCKSIZE)
"""The end of a tar."""
_ENDINGS = {"jpeg": "jpg", "png": "png", "webp": "webp"}
"""File endings that every WebDataset reader knows; images of other kinds become PNG."""


@dataclass(frozen=True)
class File:
    """One file of a sample."""

    ending: str
    """The end of its name, after the key and a dot."""
    content: bytes
    """Its content."""


def sample_files(record: Record) -> list[File]:
    """The files of a record: its images in order, then its JSON; DataError if it could not be
    read back.
    """
    images = [_image_file(image) for image in record.images]
    row: dict[str, Any] = {
        "id": record.id,
        "kind": record.kind,
        "messages": [
            {"role": turn.role, "content": turn.text, **turn_flags(turn)} for turn in record.turns
        ],
    }
    # The reader's own checks: what is written here must not be refused there.
    conversation_record(
        row, tuple(file.content for file in images), name=record.id, kind=record.kind
    )
    numbered = [File(f"{n}.{file.ending}", file.content) for n, file in enumerate(images)]
    try:
        text = json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"its id or text is no Unicode ({error.reason} at character {error.start}); expected text"
            " that UTF-8 can hold",
            kind="text",
        ) from error
    return [*(images if len(images) == 1 else numbered), File("json", text)]


def tar_bytes(key: str, files: list[File]) -> bytes:
    """A sample's files as members of a tar; equal files give equal bytes, as no times or owners
    are written.
    """
    return b"".join(_member(f"{key}.{file.ending}", file.content) for file in files)


def _image_file(image: ImageLike) -> File:
    """An image as it lies on disk, or as PNG if it was drawn or decoded; its first bytes
    decide the ending.
    """
    content, kind = encoded(image)
    if kind not in _ENDINGS:
        return File("png", png(load_image(content)))
    return File(_ENDINGS[kind], content)


def _member(name: str, content: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    # PAX also holds files above 8 GiB and names beyond ASCII.
    return info.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)
