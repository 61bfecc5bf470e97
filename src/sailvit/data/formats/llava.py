"""LLaVA-style conversations: JSON or JSONL rows of `conversations` (or `messages`) with `image` or `images`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import IMAGE_MARK, Record, Turn
from sailvit.data.formats.rows import RowFile, RowOptions, read_options

_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}


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
        turns = tuple(_turn(turn) for turn in _turns(row))
        images = tuple(self._rows.image(image) for image in _images(row))
        marks = sum(turn.text.count(IMAGE_MARK) for turn in turns)
        if marks != len(images):
            raise DataError(
                f"record {name} has {marks} {IMAGE_MARK} marks and {len(images)} images; expected one mark per image:"
                " correct the marks in its turns or its list of images"
            )
        return Record(name, turns, images, str(row.get("kind", self._kind)))


def open_llava(config: SourceConfig, folder: Path) -> LlavaSource:
    """The conversations in the file that `path` names."""
    options = read_options(LlavaOptions, config)
    return LlavaSource(RowFile(config, folder, options), options)


def _turns(row: dict[str, Any]) -> list[Any]:
    turns = row.get("conversations", row.get("messages"))
    if not isinstance(turns, list) or not turns:
        raise DataError(
            f"found keys {', '.join(row) or 'none'}; expected a list of turns in `conversations` or `messages`"
        )
    return turns


def _turn(turn: Any) -> Turn:
    """A turn from `{from, value}` or `{role, content}`."""
    fields = turn if isinstance(turn, dict) else {}
    speaker = fields.get("from", fields.get("role"))
    text = fields.get("value", fields.get("content"))
    if isinstance(text, list):
        text = "".join(map(_piece, text))
    role = _ROLES.get(str(speaker))
    if role is None or not isinstance(text, str):
        raise DataError(
            f"found turn {str(turn)[:80]}; expected `from` (or `role`), one of {', '.join(_ROLES)},"
            " and text in `value` (or `content`)"
        )
    return Turn(role, text)


def _piece(piece: Any) -> str:
    """One piece of a message whose content is a list of `{type: text, text}` and `{type: image}`."""
    match piece:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image"}:
            return IMAGE_MARK
    raise DataError(f"found content {str(piece)[:80]}; expected pieces of type text or image")


def _images(row: dict[str, Any]) -> list[str]:
    """Image names from `image` (one or a list) or `images`."""
    found = row.get("images", row.get("image")) or []
    names = [found] if isinstance(found, str) else found
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"found images {str(found)[:80]}; expected a path or a list of paths")
    return names
