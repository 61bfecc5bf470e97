"""Rows of columns, as Parquet and Arrow files hold them, as records."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from zlib import crc32

from sailvit.core.errors import DataError
from sailvit.core.records import Record
from sailvit.data.rows.conversations import (
    IMAGE_KEYS,
    RecordOptions,
    row_images,
    row_name,
    row_record,
)
from sailvit.data.rows.keys import REFUSED
from sailvit.data.rows.turns import PAIRS, SYSTEMS, TURNS

TEXTS = {*TURNS, "caption", "text", *PAIRS}
"""Columns of which a data set needs one."""
COLUMNS = dict.fromkeys(
    (
        *("id", "kind", "image", "images", *TURNS, "caption", "text", *SYSTEMS),
        *(key for answer, asked in PAIRS.items() for key in (*asked, answer)),
        *("history", "label", *REFUSED),
    )
)
"""Columns that are read, in this order, some only to refuse them; others stay on disk."""
DAMAGE = (OSError, ValueError, KeyError, IndexError, NotImplementedError)
"""What pyarrow raises on damaged files; its own errors derive from these."""


def arrow(module: str) -> Any:
    """A module of pyarrow; DataError with the command to install it when it is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(
            f"Parquet and Arrow files need pyarrow, which cannot be imported ({error});"
            " install it: pip install 'sailvit[parquet]'"
        ) from error


def known_columns(names: Iterable[str], path: Path) -> list[str]:
    """The columns to read, of those in a file; DataError when none of them holds text."""
    names = list(names)
    if not TEXTS & set(names):
        raise DataError(
            f"{path} has columns {', '.join(names) or 'none'}; expected one of"
            f" {', '.join(sorted(TEXTS))}: rename yours"
        )
    return [name for name in COLUMNS if name in names]


def row_crc32(row: dict[str, Any]) -> int:
    """Checksum of a row: crc32 of its JSON, in which each image is replaced by its crc32, and a
    date, decimal or the like by its text.
    """
    return crc32(json.dumps(row, sort_keys=True, default=_checksum_or_text).encode())


def _checksum_or_text(value: Any) -> int | str:
    return crc32(value) if isinstance(value, bytes) else str(value)


def column_record(
    row: dict[str, Any],
    options: RecordOptions,
    *,
    folder: Path,
    position: int,
    left: Collection[str] = (),
) -> Record:
    """The record of one row; image paths start at `folder`, and `left` names columns that were
    not read.
    """
    fields = {name: value for name, value in row.items() if value is not None}
    images = row_images(fields, folder)
    name = row_name(fields, position)
    record = row_record(fields, images, options, name=name, position=position, read=IMAGE_KEYS)
    return replace(record, unread=(*record.unread, *left)) if left else record
