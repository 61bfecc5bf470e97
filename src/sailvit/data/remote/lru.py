"""Files on disk that several processes share: the lock on one being written, and LRU eviction."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PART = ".part"
"""Ending of a file that is still being written."""


@contextmanager
def try_lock(part: Path) -> Iterator[BinaryIO | None]:
    """The open file `part`, locked against other processes and threads, or None while another
    one has it.

    A partial file is its own lock (`flock`), so a killed process leaves none behind and no lock
    files gather. Whoever held it may have renamed or removed it between opening and locking;
    that counts as held by another.
    """
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file if lies_at(file, part) else None


def lies_at(file: BinaryIO, path: Path) -> bool:
    """Whether the open file is the one that `path` names now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def touch(path: Path) -> bool:
    """Whether `path` is there; notes this use for `evict`, also where the disk keeps no access
    times by itself.
    """
    try:
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        # A cache that was filled by somebody else; who may not write there removes nothing
        # either.
        return True
    return True


def evict(folder: Path, most: int) -> None:
    """Removes files below `folder`, least recently used first, until they take at most `most`
    bytes.

    A reader that has a file open goes on reading it: POSIX frees the bytes when the last one
    closes it. Two processes at once remove the same files, so neither needs to wait for the
    other.
    """
    found = sorted(_files(folder), key=lambda entry: entry[0])
    total = sum(size for _, size, _ in found)
    for _, size, path in found:
        if total <= most:
            return
        total -= size if _remove(path) else 0


def _files(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """Last use, size and path of every file below `folder`."""
    for base, _, names in os.walk(folder):
        for path in (Path(base, name) for name in names):
            with suppress(FileNotFoundError):
                facts = path.stat()
                yield facts.st_atime_ns, facts.st_size, path


def _remove(path: Path) -> bool:
    """Whether `path` is gone; a partial file goes only if its writer died."""
    if path.suffix != PART:
        path.unlink(missing_ok=True)
        return True
    with try_lock(path) as file:
        if file is not None:
            path.unlink(missing_ok=True)
        return file is not None
