"""Tars read member by member: which members may be read, where damage starts, and whether a
file has changed.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO

from sailvit.core.errors import DataError

_DAMAGE = (tarfile.TarError, ValueError, OverflowError, OSError)
"""What `tarfile` raises on damaged headers."""

Stamp = tuple[int, int]
"""Size in bytes and time of change in nanoseconds."""


class DamageError(DataError):
    """A tar that cannot be read from some byte on."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message, kind="cut shard")
        self.offset = offset
        """That byte."""


def members(file: IO[bytes], start: int) -> Iterator[tarfile.TarInfo]:
    """The members of a tar from the header at byte `start`; DamageError when it is damaged or
    has no end.
    """
    file.seek(start)
    at = start
    try:
        # Never compressed ones, in which no byte offset leads to a member.
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                if tar.offset < member.offset_data:
                    raise tarfile.ReadError("negative size")
                yield member
                at = tar.offset
            # tarfile also accepts a file that just ends, as one that was cut between members.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("no end mark")
    except _DAMAGE as error:
        at = min(at, os.fstat(file.fileno()).st_size)
        raise DamageError(
            f"cut or damaged at byte {at} ({error}); expected a complete tar, not compressed:"
            " fetch it again",
            at,
        ) from error


def wrong(member: tarfile.TarInfo) -> tuple[str, str] | None:
    """Kind and reason of a member that is neither a plain file nor a folder inside the shard."""
    name = f"member {member.name!r}"
    if member.name.startswith("/") or ".." in PurePosixPath(member.name).parts:
        return (
            "unsafe name",
            f"{name} leads out of the shard; expected a relative name: it is left out",
        )
    if member.issym() or member.islnk():
        return "link", f"{name} is a link; expected plain files: it is left out, and not followed"
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) or member.issparse():
        return "device", f"{name} has type {member.type!r}; expected plain files: it is left out"
    return None


def stamp_of(file: IO[bytes]) -> Stamp:
    """Size and time of change of an open file, which show whether it was written again."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def content_of(file: IO[bytes], member: tarfile.TarInfo) -> bytes:
    """The bytes of a member; DataError when the file ends before them."""
    file.seek(member.offset_data)
    content = file.read(member.size)
    if len(content) != member.size:
        raise DataError(
            f"{member.name} ends after {len(content)} of {member.size} bytes; expected the"
            " shard as it was when opened: fetch it again and restart",
            kind="cut shard",
        )
    return content


def plain_files(content: bytes) -> list[tuple[str, slice]] | None:
    """Names and places of the members in a part of a tar; None unless every header is plain.

    Only for bytes whose checksum was right, as little is checked here; it takes an eighth of
    tarfile's time.
    """
    found, at = [], 0
    try:
        while at < len(content):
            # POSIX ustar: name from byte 0, size in octal from 124, type at 156, magic at 257,
            # and from 345 the beginning of names longer than 100 bytes.
            header = content[at : at + tarfile.BLOCKSIZE]
            name, size = header[:100].partition(b"\0")[0].decode(), int(header[124:135], 8)
            regular = header[156:157] == b"0" and header[257:262] == b"ustar" and not header[345]
            if not regular or name.startswith("/") or ".." in name:
                return None
            start = at + tarfile.BLOCKSIZE
            found.append((name, slice(start, start + size)))
            at = start + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    except (ValueError, IndexError):
        return None
    return found
