"""Checksums: what tells a checkpoint as it was written from a damaged one."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

from sailvit.core.errors import RunError
from sailvit.core.run import read_json

_BLOCK = 1 << 22
"""Bytes read at a time for a checksum."""


def problem(path: Path) -> str | None:
    """What differs from the checkpoint as it was written; None when nothing does."""
    try:
        files: dict[str, Any] = read_json(path / "complete.json")["files"]
        return next(
            (f"{n} {p}" for n, written in files.items() if (p := _difference(path / n, written))),
            None,
        )
    except (RunError, KeyError, TypeError) as error:
        return f"complete.json cannot be read: {error}"


def _difference(file: Path, written: dict[str, int]) -> str | None:
    if not file.exists():
        return "is missing"
    size = file.stat().st_size
    if size != written["bytes"]:
        return f"has {size} bytes instead of {written['bytes']}"
    return None if summary(file) == written else "has another checksum than when it was written"


def summary(file: Path) -> dict[str, int]:
    """Size and crc32 of a file, which is on the disk when this returns."""
    crc = 0
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            crc = zlib.crc32(block, crc)
        # On the disk, not in a cache that a power cut empties, before the folder gets its name.
        os.fsync(opened.fileno())
    return {"bytes": file.stat().st_size, "crc32": crc}
