"""Records that are left out because they cannot be used: one type for them, whatever finds
them, and their lines in files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, TypeVar

from sailvit.core.errors import DataError, one_line
from sailvit.core.run import RunFolder, read_lines

UNUSABLE = (
    DataError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)
"""What reading, tokenizing and decoding raise on bad records; libraries let some of these
through."""
_LONGEST_NAME = 1000
"""Characters kept of an id or of a file's path."""
_Bad = TypeVar("_Bad", bound="BadRecord")


@dataclass(frozen=True, kw_only=True)
class BadRecord:
    """A record that is left out, or damage of a file that makes no record."""

    source: str = ""
    """Name of its source, or of its shard; empty where a source tells of itself."""
    position: int | None = None
    """Its position in the source; None for damage that makes no record."""
    id: str | None = None
    """Its id, where that could be read."""
    kind: str
    """What is damaged, in a word or two that counts can be kept by: `image`, `missing file`,
    `cut shard`, ..."""
    reason: str
    """What was found, what was expected, and what to do."""
    shard: str | None = None
    """The file it lies in, where its source tells."""
    offset: int | None = None
    """Where in that file, where its source tells: the line of files of lines, the row of
    Parquet and Arrow, the byte of tars."""
    count: int = 1
    """How often this kind of damage was found in that file; only the first is described."""

    @property
    def place(self) -> str | None:
        """Where it lies, as `file:line`, `file:row`, `file:byte` or `file`; None where that is
        not known.
        """
        return self.shard if self.offset is None else f"{self.shard}:{self.offset}"

    @property
    def what(self) -> tuple[object, ...]:
        """What identifies it in its source: its position or, without one, its place."""
        return (self.shard, self.offset) if self.position is None else (self.position,)

    def __str__(self) -> str:
        if self.position is None:
            more = f" (and {self.count - 1:,} more)" if self.count > 1 else ""
            return f"{self.shard}: {self.reason}{more}"
        name = f"record {self.position}{f' ({self.id})' if self.id else ''} of source {self.source}"
        return f"{name}: {self.reason}"

    @classmethod
    def from_line(cls: type[_Bad], line: Mapping[str, Any]) -> _Bad:
        """What a line of a file says; files of earlier versions have fewer keys."""
        return cls(**{name: line[name] for name in cls.__dataclass_fields__ if name in line})


@dataclass(frozen=True, kw_only=True)
class QuarantinedRecord(BadRecord):
    """A bad record that a run left out: a line of its quarantine."""

    step: int
    """The step it was planned for, counted from 1; 0 where its source opened."""
    stage: str = ""
    """The stage of that step."""
    stage_index: int = 0
    """Its number, from 0."""
    rank: int = 0
    """The process that found it."""


def bad_record(
    source: str,
    position: int | None,
    error: BaseException,
    *,
    name: str | None = None,
    place: tuple[str | None, int | None] = (None, None),
) -> BadRecord:
    """The bad record for an `error` that reading, tokenizing or decoding it raised.

    `name` is its id, where that could be read, and `place` comes from `place_of`.
    """
    if isinstance(error, DataError):
        kind, reason = error.kind, one_line(error)
    else:
        kind = "unreadable" if isinstance(error, OSError) else "unexpected"
        reason = one_line(f"{type(error).__name__}: {error}")
    name, shard = (None if text is None else _writable(text) for text in (name, place[0]))
    return BadRecord(
        source=source,
        position=position,
        id=name,
        kind=kind,
        reason=reason,
        shard=shard,
        offset=place[1],
    )


def _writable(text: str) -> str:
    """Foreign text that a line of JSON can hold: without lone surrogates, and of limited
    length.
    """
    return text[:_LONGEST_NAME].encode(errors="backslashreplace").decode()


def quarantined(bad: BadRecord, step: int) -> QuarantinedRecord:
    """A bad record as step `step` of a run found it."""
    return QuarantinedRecord(**asdict(bad), step=step)


def read_quarantine(run: RunFolder) -> list[QuarantinedRecord]:
    """The records that a run left out on all ranks, in the order of its steps."""
    return merged_quarantines(chain.from_iterable(map(read_lines, run.quarantines)))


def merged_quarantines(lines: Iterable[Mapping[str, Any]]) -> list[QuarantinedRecord]:
    """Lines of a run's quarantine, in the order of its steps; a step that was repeated counts
    once.
    """
    found = {}
    for line in lines:
        bad = QuarantinedRecord.from_line(line)
        found[bad.rank, bad.stage_index, bad.step, bad.source, bad.kind, bad.what] = bad
    return sorted(found.values(), key=lambda bad: (bad.stage_index, bad.step))


def left_out(records: Iterable[BadRecord]) -> dict[str, Counter[str]]:
    """How many records were left out, by source and kind."""
    found: dict[str, Counter[str]] = {}
    for bad in records:
        found.setdefault(bad.source, Counter())[bad.kind] += bad.count
    return found
