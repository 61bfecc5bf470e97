"""The base of sources of column files: finds a record's row, and keeps the faults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sailvit.data.shards.files import Faults, Spans


class ColumnFiles:
    """Records in files whose rows lie in groups; a subclass reads a row of a group."""

    def __init__(
        self,
        paths: list[Path],
        groups: Sequence[Sequence[int]],
        limit: int | None,
        *,
        faults: Faults,
        fingerprint: str,
    ) -> None:
        """`groups` holds each file's numbers of rows per group."""
        self._paths = paths
        self._sizes = [sum(rows) for rows in groups]
        self._files = Spans([len(rows) for rows in groups])
        self._rows = Spans([size for rows in groups for size in rows], limit)
        faults.refuse_nothing_left(len(self._rows))
        self._limit = limit
        self.faults = faults.all()
        """Files, or parts of them, that were left out when the source opened."""
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shards(self) -> tuple[int, ...]:
        """Records per file."""
        return Spans(self._sizes, self._limit).lengths

    def place(self, position: int) -> tuple[str, int]:
        """File of the record at `position`, and its row there."""
        file, row = Spans(self._sizes).find(position)
        return str(self._paths[file]), row
