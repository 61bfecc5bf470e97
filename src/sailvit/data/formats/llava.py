"""LLaVA-style conversations: JSON or JSONL rows of `conversations` (or `messages`) with `image` or `images`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Record
from sailvit.data.formats.conversations import conversation_record
from sailvit.data.formats.rows import RowFile, RowOptions, read_options


class LlavaOptions(RowOptions):
    """Options of format `llava`."""

    kind: str = "chat"
    """Kind of the records whose row has no `kind`; `caption` lets the contrastive objective use them."""


class LlavaSource:
    """Conversations as records."""

    def __init__(self, rows: RowFile, options: LlavaOptions) -> None:
        self._rows = rows
        self._kind = options.kind
        self.fingerprint = rows.fingerprint

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> Record:
        row = self._rows[position]
        name = str(row.get("id", position))
        images = tuple(self._rows.image(image) for image in _images(row))
        return conversation_record(row, images, name=name, kind=self._kind)


def open_llava(config: SourceConfig, folder: Path) -> LlavaSource:
    """The conversations in the file that `path` names."""
    options = read_options(LlavaOptions, config)
    return LlavaSource(RowFile(config, folder, options), options)


def _images(row: dict[str, Any]) -> list[str]:
    """Image names from `image` (one or a list) or `images`."""
    found = row.get("images", row.get("image")) or []
    names = [found] if isinstance(found, str) else found
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"found images {str(found)[:80]}; expected a path or a list of paths")
    return names
