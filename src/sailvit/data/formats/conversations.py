"""Conversations and captions of foreign rows as records, whatever file the rows came from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from sailvit.core.errors import DataError
from sailvit.core.records import IMAGE_MARK, Record, Turn
from sailvit.data.formats.rows import RowOptions, image_from

ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
}
"""Who speaks, by the words that public sets use for it, in small letters."""

TURNS = ("conversations", "messages", "conversation", "texts")
"""Keys under which rows hold turns; `texts` of The Cauldron are pairs of `user` and `assistant`, without marks."""

Mark = Literal["strict", "prepend"]
"""What becomes of a conversation with images and no mark: it is refused, or its images go before the first question."""

Images = tuple[Path | bytes, ...]
"""Files or encoded bytes."""


class RecordOptions(RowOptions):
    """Options of formats whose rows hold a conversation or a caption."""

    kind: str | None = None
    """Kind of the records whose row has no `kind`; none takes `caption` for captions and `chat` for conversations."""
    prompts: Annotated[list[str], Field(min_length=1)] = ["Describe the image."]
    """What asks for a caption; row n takes prompt n modulo their number. The image stands before it."""
    mark: Mark = "strict"
    """Whether a conversation with images and without any `<image>` is refused, or gets its marks at the start."""


def row_record(
    row: Mapping[str, Any], images: Images, options: RecordOptions, *, name: str, position: int
) -> Record:
    """The record of a row with turns, else with `caption` or `text`."""
    if any(row.get(key) is not None for key in TURNS):
        return conversation_record(
            row, images, name=name, kind=options.kind or "chat", mark=options.mark
        )
    prompt = options.prompts[position % len(options.prompts)]
    kind = str(row.get("kind") or options.kind or "caption")
    return Record(name, _caption_turns(row, len(images), prompt), images, kind)


def conversation_record(
    row: Mapping[str, Any], images: Images, *, name: str, kind: str, mark: Mark = "strict"
) -> Record:
    """The record of a row with turns; its marks must be as many as the images."""
    turns = conversation_turns(row)
    if images and (mark == "prepend" or row.get("texts") is not None):
        turns = put_first(turns, "\n".join([IMAGE_MARK] * len(images)))
    marks = sum(turn.text.count(IMAGE_MARK) for turn in turns)
    if marks != len(images):
        raise DataError(
            f"record {name} has {marks} {IMAGE_MARK} marks and {len(images)} images; expected one mark per image:"
            " correct the marks in its turns or its list of images"
            + (", or set the option mark: prepend" if not marks else ""),
            kind="marks",
        )
    _check_order(turns)
    return Record(name, tuple(turns), images, str(row.get("kind") or kind))


def conversation_turns(row: Mapping[str, Any]) -> list[Turn]:
    """The turns of a row, as they stand there."""
    return [turn for given in _turns(row) for turn in _spoken(given)]


def _check_order(turns: Sequence[Turn]) -> None:
    """User and assistant must take turns, the user first, and every answer must say something."""
    spoken = turns[1:] if turns[0].role == "system" else turns
    expected = [("user", "assistant")[index % 2] for index in range(len(spoken))]
    if [turn.role for turn in spoken] != expected:
        roles = ", ".join(turn.role for turn in turns[:8])
        raise DataError(
            f"the turns are {roles}; expected user and assistant alternately, the user first, after a system turn at"
            " most: merge or reorder them",
            kind="turns",
        )
    if any(turn.role == "assistant" and not turn.text.strip() for turn in turns):
        raise DataError(
            "an answer is blank; expected text to learn: write it or remove its turns", kind="turns"
        )


def put_first(turns: Sequence[Turn], marks: str) -> list[Turn]:
    """The turns with `marks` before the first question, unless they have marks already."""
    first = next((index for index, turn in enumerate(turns) if turn.role == "user"), None)
    if first is None or any(re.search("<image>|<video>", turn.text) for turn in turns):
        return list(turns)
    return [*turns[:first], Turn("user", f"{marks}\n{turns[first].text}"), *turns[first + 1 :]]


def row_name(row: Mapping[str, Any], position: int) -> str:
    """What a record is called: the row's `id`, or its position where that is missing or empty."""
    found = row.get("id")
    return str(position if found is None or found == "" else found)


def row_images(row: Mapping[str, Any], folder: Path) -> Images:
    """The images of a row: in `images` or `image`, one or a list, or else in the pieces of its messages."""
    found = row.get("images") or row.get("image") or _inline(row)
    return tuple(
        image_from(value, folder) for value in (found if isinstance(found, list) else [found])
    )


def _inline(row: Mapping[str, Any]) -> list[Any]:
    """Images that stand in the messages themselves: `{type: image, image: path}` or `{type: image_url, image_url}`."""
    turns = row.get("messages")
    contents = (
        [turn.get("content") for turn in turns if isinstance(turn, dict)]
        if isinstance(turns, list)
        else []
    )
    pieces = [piece for content in contents if isinstance(content, list) for piece in content]
    shown = [
        piece
        for piece in pieces
        if isinstance(piece, dict) and piece.get("type") in ("image", "image_url")
    ]
    found = [piece.get("image_url") or piece.get("image") for piece in shown]
    return [value for value in found if value]


def caption_turns(text: str, prompt: str, images: int = 1) -> tuple[Turn, Turn]:
    """A caption as a conversation: the images, the prompt, and the caption as the answer."""
    if IMAGE_MARK in text:
        raise DataError(
            f"the caption contains {IMAGE_MARK}; expected plain text: remove the mark", kind="marks"
        )
    return Turn("user", f"{IMAGE_MARK}\n" * images + prompt), Turn("assistant", text)


def _caption_turns(row: Mapping[str, Any], images: int, prompt: str) -> tuple[Turn, Turn]:
    text = row.get("caption", row.get("text"))
    if not isinstance(text, str) or not text.strip():
        raise DataError(
            f"found {', '.join(row) or 'nothing'}; expected turns in `conversations` or `messages`,"
            " or a `caption` (or `text`) that is not blank",
            kind="turns",
        )
    if images == 0:
        raise DataError(
            "found a caption without an image; expected one image at least: add it or remove the row",
            kind="marks",
        )
    return caption_turns(text, prompt, images)


def _turns(row: Mapping[str, Any]) -> Sequence[Any]:
    turns = next((row[key] for key in TURNS if row.get(key) is not None), None)
    if not isinstance(turns, list) or not turns:
        raise DataError(
            f"found keys {', '.join(row) or 'none'}; expected a list of turns in `conversations` or `messages`",
            kind="turns",
        )
    return turns


def _spoken(turn: Any) -> tuple[Turn, ...]:
    """The turn of `{from, value}` or `{role, content}`, or both of `{user, assistant}`."""
    match turn:
        case {"user": str(question), "assistant": str(answer)}:
            return Turn("user", question), Turn("assistant", answer)
    return (_turn(turn),)


def _turn(turn: Any) -> Turn:
    """A turn from `{from, value}` or `{role, content}`; InternVL's own example has `text` for `value`."""
    fields = turn if isinstance(turn, dict) else {}
    speaker = fields.get("from", fields.get("role"))
    text = next(
        (fields[key] for key in ("value", "content", "text") if fields.get(key) is not None), None
    )
    if isinstance(text, list):
        text = "".join(map(_piece, text))
    role = ROLES.get(str(speaker).lower())
    if role is None or not isinstance(text, str):
        raise DataError(
            f"found turn {str(turn)[:80]}; expected `from` (or `role`), one of {', '.join(ROLES)},"
            " and text in `value` (or `content`)",
            kind="turns",
        )
    return Turn(role, text)


def _piece(piece: Any) -> str:
    """One piece of a message whose content is a list of `{type: text, text}` and `{type: image}`."""
    match piece:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image" | "image_url"}:
            return IMAGE_MARK
    raise DataError(
        f"found content {str(piece)[:80]}; expected pieces of type text or image", kind="turns"
    )
