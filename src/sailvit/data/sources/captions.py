"""Captions: a row holds `image` and `text` (or `caption`); a prompt is the question."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from sailvit.core.errors import DataError, one_line
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Record
from sailvit.data.rows.conversations import IMAGE_KEYS, caption_record, row_images, row_name
from sailvit.data.rows.row import RowFile, RowOptions, RowSource, read_options


class CaptionsOptions(RowOptions):
    """Options of format `captions`."""

    prompts: Annotated[list[str], Field(min_length=1)] = ["Describe the image."]
    """Questions for captions; row n takes number n modulo their number. The image stands before
    the question."""


class CaptionsSource(RowSource[CaptionsOptions]):
    """Image and caption pairs as records of kind `caption`."""

    def __getitem__(self, position: int) -> Record:
        row = self._rows[position]
        images = row_images(row, self._rows.images)
        key = "text" if row.get("text") else "caption"
        text = row.get(key)
        if len(images) != 1 or not isinstance(text, str) or not text.strip():
            raise DataError(
                f"found keys {one_line(', '.join(row) or 'none', 200)}; expected one `image`,"
                " and a `text` or `caption` that is not blank"
            )
        prompts = self._options.prompts
        kind = str(row.get("kind") or "caption")
        name = row_name(row, position)
        prompt = prompts[position % len(prompts)]
        return caption_record(row, images, key, prompt, name=name, kind=kind, read=IMAGE_KEYS)


def open_captions(config: SourceConfig, folder: Path) -> CaptionsSource:
    """The captions in the file at `path`."""
    options = read_options(CaptionsOptions, config)
    return CaptionsSource(RowFile(config, folder, options), options)
