"""Conversations and captions of foreign rows as records, whatever file the rows came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from sailvit.core.errors import DataError
from sailvit.core.records import IMAGE_MARK, Record, Turn
from sailvit.data.formats.rows import RowOptions

ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}
"""Who speaks, by the words that are used for it."""

Images = tuple[Path | bytes, ...]
"""Files or encoded bytes."""


class RecordOptions(RowOptions):
    """Options of formats whose rows hold a conversation or a caption."""

    kind: str | None = None
    """Kind of the records whose row has no `kind`; none takes `caption` for captions and `chat` for conversations."""
    prompts: Annotated[list[str], Field(min_length=1)] = ["Describe the image."]
    """What asks for a caption; row n takes prompt n modulo their number. The image stands before it."""


def row_record(row: Mapping[str, Any], images: Images, options: RecordOptions, *, name: str, position: int) -> Record:
    """The record of a row with `conversations` or `messages`, else with `caption` or `text`."""
    if row.get("conversations", row.get("messages")) is not None:
        return conversation_record(row, images, name=name, kind=options.kind or "chat")
    prompt = options.prompts[position % len(options.prompts)]
    return Record(
        name, _caption_turns(row, len(images), prompt), images, str(row.get("kind", options.kind or "caption"))
    )


def conversation_record(row: Mapping[str, Any], images: Images, *, name: str, kind: str) -> Record:
    """The record of a row with `conversations` or `messages`; its marks must be as many as the images."""
    turns = tuple(_turn(turn) for turn in _turns(row))
    marks = sum(turn.text.count(IMAGE_MARK) for turn in turns)
    if marks != len(images):
        raise DataError(
            f"record {name} has {marks} {IMAGE_MARK} marks and {len(images)} images; expected one mark per image:"
            " correct the marks in its turns or its list of images"
        )
    return Record(name, turns, images, str(row.get("kind", kind)))


def caption_turns(text: str, prompt: str, images: int = 1) -> tuple[Turn, Turn]:
    """A caption as a conversation: the images, the prompt, and the caption as the answer."""
    if IMAGE_MARK in text:
        raise DataError(f"the caption contains {IMAGE_MARK}; expected plain text: remove the mark")
    return Turn("user", f"{IMAGE_MARK}\n" * images + prompt), Turn("assistant", text)


def _caption_turns(row: Mapping[str, Any], images: int, prompt: str) -> tuple[Turn, Turn]:
    text = row.get("caption", row.get("text"))
    if not isinstance(text, str) or not text.strip():
        raise DataError(
            f"found {', '.join(row) or 'nothing'}; expected turns in `conversations` or `messages`,"
            " or a `caption` (or `text`) that is not blank"
        )
    if images == 0:
        raise DataError("found a caption without an image; expected one image at least: add it or remove the row")
    return caption_turns(text, prompt, images)


def _turns(row: Mapping[str, Any]) -> Sequence[Any]:
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
    role = ROLES.get(str(speaker))
    if role is None or not isinstance(text, str):
        raise DataError(
            f"found turn {str(turn)[:80]}; expected `from` (or `role`), one of {', '.join(ROLES)},"
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
