"""LLaVA-style conversations: JSON or JSONL rows of `conversations` (or `messages`) with `image`
or `images`.
"""

from __future__ import annotations

from pathlib import Path

from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Record
from sailvit.data.rows.conversations import (
    IMAGE_KEYS,
    Mark,
    conversation_record,
    row_images,
    row_name,
)
from sailvit.data.rows.row import RowFile, RowOptions, RowSource, read_options


class LlavaOptions(RowOptions):
    """Options of format `llava`."""

    kind: str = "chat"
    """Kind of the records whose row has no `kind`; `caption` lets the contrastive objective use
    them."""
    mark: Mark = "strict"
    """What happens to a conversation with images and without any `<image>`: `strict` refuses
    it, `prepend` puts the marks first."""


class LlavaSource(RowSource[LlavaOptions]):
    """Conversations as records."""

    def __getitem__(self, position: int) -> Record:
        row = self._rows[position]
        images = row_images(row, self._rows.images)
        return conversation_record(
            row,
            images,
            name=row_name(row, position),
            kind=self._options.kind,
            mark=self._options.mark,
            read=IMAGE_KEYS,
        )


def open_llava(config: SourceConfig, folder: Path) -> LlavaSource:
    """The conversations in the file at `path`."""
    options = read_options(LlavaOptions, config)
    return LlavaSource(RowFile(config, folder, options), options)
