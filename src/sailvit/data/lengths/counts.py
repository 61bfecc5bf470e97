"""Files of counts: each record's `Facts`, and the keys of the source's rows that are not
read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sailvit.core.errors import DataError
from sailvit.data.processing.processor import Facts

Counts = NDArray[np.int32]
"""`Facts` per record, int32[4, n]."""


class CountsDraft:
    """Counts being written: in memory, or in a file that gets its name once it is complete."""

    def __init__(self, file: Path | None, records: int) -> None:
        self._file = file
        self._records = records
        self.counts: Counts = np.zeros((len(Facts._fields), records), dtype=np.int32)
        if file is not None and records:
            self.counts = self._open(file)

    def finish(self, unread: Mapping[str, int]) -> Counts:
        """The counts; their file now has its name, and ends with the unread keys."""
        if self._file is None or not self._records:
            return self.counts
        with _writing(self._file.parent):
            self.counts.flush()  # type: ignore[attr-defined]
            with self._part(self._file).open("ab") as file:
                file.write(json.dumps(unread).encode())
            self._part(self._file).replace(self._file)
        counts: Counts = np.load(self._file, mmap_mode="r", allow_pickle=False)
        return counts

    def _open(self, file: Path) -> Counts:
        with _writing(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
            counts = np.lib.format.open_memmap(
                self._part(file),
                mode="w+",
                dtype=np.int32,
                shape=(len(Facts._fields), self._records),
            )
            if hasattr(os, "posix_fallocate"):
                # Space is reserved now: a write to a mapping kills the process (SIGBUS) when
                # the disk is full.
                with self._part(file).open("r+b") as opened:
                    os.posix_fallocate(opened.fileno(), 0, os.fstat(opened.fileno()).st_size)
            return counts

    @staticmethod
    def _part(file: Path) -> Path:
        return file.with_name(f"{file.name}.{os.getpid()}.part")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """A context that writes into the folder; DataError when that fails."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({error}); it keeps token counts of data sets: let"
            " $SAILVIT_CACHE name a folder that can",
            kind="cache",
        ) from error


def kept_counts(file: Path, records: int) -> tuple[Counts, dict[str, int]] | None:
    """The counts in a file and the unread keys; None where they cannot be used."""
    counts = _read_counts(file, records)
    unread = None if counts is None else _read_unread(file, counts)
    return None if counts is None or unread is None else (counts, unread)


def _read_counts(file: Path, records: int) -> Counts | None:
    """The counts in a file; None where they cannot be used."""
    try:
        counts = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return (
        counts
        if counts.shape == (len(Facts._fields), records) and counts.dtype == np.int32
        else None
    )


def _read_unread(file: Path, counts: Counts) -> dict[str, int] | None:
    """The keys that were not read when the source was measured, which follow the counts.

    np.load reads no further than its array, so one file can hold both and be replaced as a
    whole.
    """
    try:
        with file.open("rb") as opened:
            opened.seek(getattr(counts, "offset", 0) + counts.nbytes)
            found: dict[str, int] = json.loads(opened.read())
    except (OSError, ValueError):
        return None
    return found
