"""Shards: sources of several files, and which of them holds a position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from glob import glob, has_magic
from os.path import commonpath
from pathlib import Path

import numpy as np

from sailvit.core.bad_records import BadRecord
from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.data.file_tree import files_below
from sailvit.data.shards.manifest import refuse_unfinished


class Faults:
    """Collects faults: one per shard and kind, with a count, so that their number does not grow
    with that of the records.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], BadRecord] = {}

    def add(self, shard: Path, offset: int | None, kind: str, reason: str) -> None:
        """Note a fault."""
        first = self._found.get((str(shard), kind))
        fault = (
            BadRecord(shard=str(shard), offset=offset, kind=kind, reason=reason)
            if first is None
            else replace(first, count=first.count + 1)
        )
        self._found[str(shard), kind] = fault

    def __bool__(self) -> bool:
        return bool(self._found)

    def all(self) -> tuple[BadRecord, ...]:
        """The faults, in the order in which they were found."""
        return tuple(self._found.values())

    def refuse_nothing_left(self, records: int) -> None:
        """DataError with the first fault when no record is left to read."""
        if self._found and not records:
            first, *others = self._found.values()
            more = f" (and {len(others)} more faults)" if others else ""
            raise DataError(
                f"{first.shard}: {first.reason}{more}; no record is left to read", kind=first.kind
            )


def shard_paths(config: SourceConfig, folder: Path, suffix: str) -> list[Path]:
    """The files at the config's `path`, sorted: one file, those that match a glob, or all
    `suffix` files below a folder.
    """
    if config.path is None:
        raise DataError(
            f"no `path`; format {config.format} needs a {suffix} file, a folder of them, or a glob"
        )
    path = folder / config.path
    if path.is_file():
        return [path]
    found = _below(path, suffix) if path.is_dir() else _matching(path)
    # A link that leads nowhere is kept, so that it is listed as a shard that cannot be read.
    paths = sorted(shard for shard in found if shard.is_file() or not shard.exists())
    if not paths:
        looked = "matches no file" if has_magic(str(path)) else f"holds no {suffix} file"
        raise DataError(
            f"{path} {looked}; check `path` (relative paths start at the recipe's folder)"
        )
    for parent in dict.fromkeys(shard.parent for shard in paths):
        refuse_unfinished(parent)
    return paths


def _below(folder: Path, suffix: str) -> list[Path]:
    return [folder / name for name in files_below(folder, hidden=True) if name.endswith(suffix)]


def _matching(pattern: Path) -> list[Path]:
    # `Path.glob` needs the fixed part of the pattern apart.
    return [Path(found) for found in glob(str(pattern), recursive=True)]  # noqa: PTH207


def shard_names(paths: Sequence[Path]) -> list[str]:
    """The name of each shard: its path below the folder that all share, without the suffix."""
    shared = commonpath([path.parent for path in paths])
    return [path.relative_to(shared).with_suffix("").as_posix() for path in paths]


class Spans:
    """Which run of rows a position falls into; 8 bytes per run."""

    def __init__(self, lengths: Sequence[int], limit: int | None = None) -> None:
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self._limit = limit

    def __len__(self) -> int:
        total = int(self._starts[-1])
        return min(total, self._limit or total)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Positions in each run; those above the limit do not count."""
        ends = np.minimum(self._starts, len(self))
        return tuple(np.diff(ends).tolist())

    def find(self, position: int) -> tuple[int, int]:
        """The run that holds `position`, and the position inside it."""
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} of {len(self)}")
        run = int(np.searchsorted(self._starts, position, side="right")) - 1
        return run, position - int(self._starts[run])
