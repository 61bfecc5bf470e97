"""Files that several processes share: a lock on one being written, and LRU eviction."""

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
    """A context with the file `part`, open and locked against other processes and threads; None
    while another one holds it.

    A partial file is its own lock (`flock`), so a killed process leaves no lock behind and no
    lock files pile up. The last holder may have renamed or removed the file between opening and
    locking; that counts as held by another.
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
    """Whether `path` exists; sets its access time for `evict`, as many disks are mounted so that
    reading does not.
    """
    try:
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        # Somebody else filled the cache: without the right to write, this process evicts
        # nothing from it either.
        return True
    return True


def evict(folder: Path, most: int) -> None:
    """Removes files below `folder`, least recently used first, until they take at most `most`
    bytes.

    A process that has a file open can go on reading it: POSIX frees the bytes when the last one
    closes it. Two processes at the same time choose the same files, so they need no lock.
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
    """Remove `path`, a partial file only if its writer died; whether it is gone."""
    if path.suffix != PART:
        path.unlink(missing_ok=True)
        return True
    with try_lock(path) as file:
        if file is not None:
            path.unlink(missing_ok=True)
        return file is not None
