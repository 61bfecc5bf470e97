"""Conversations and captions in public layouts as records, for rows of any file format."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from sailvit.core.errors import DataError, one_line
from sailvit.core.records import IMAGE_MARK, Record, Turn
from sailvit.data.rows.image_refs import IMAGE_VALUES, image_from
from sailvit.data.rows.keys import (
    grounding_marks,
    refuse_keys,
    refuse_marks,
    unread_keys,
)
from sailvit.data.rows.row import RowOptions
from sailvit.data.rows.turns import Talk, has_turns, may_hold_images, read_talk, system_text

Mark = Literal["strict", "prepend"]
"""A conversation with images and without marks is refused, or its images go before the first
question."""

Images = tuple[Path | bytes, ...]
"""Files or encoded bytes."""

IMAGE_KEYS = ("images", "image")
"""Keys of a row that hold its images, in formats whose images are in the row."""
_READ = ("id", "kind")
"""Keys that every reader of rows reads."""


class RecordOptions(RowOptions):
    """Options of formats whose rows hold a conversation or a caption."""

    kind: str | None = None
    """Kind of records whose row has no `kind`; None: `caption` for captions, `chat` for
    conversations."""
    prompts: Annotated[list[str], Field(min_length=1)] = ["Describe the image."]
    """Questions for captions; row n takes number n modulo their number. The image stands before
    the question."""
    mark: Mark = "strict"
    """What happens to a conversation with images and without any `<image>`: `strict` refuses
    it, `prepend` puts the marks first."""


def row_record(
    row: Mapping[str, Any],
    images: Images,
    options: RecordOptions,
    *,
    name: str,
    position: int,
    read: Collection[str] = (),
) -> Record:
    """The record of a row with turns, else with `caption` or `text`; `read` names keys that the
    caller has read.
    """
    if has_turns(row):
        kind = options.kind or "chat"
        return conversation_record(row, images, name=name, kind=kind, mark=options.mark, read=read)
    # By position and not drawn: the same record has the same question in every epoch and run.
    prompt = options.prompts[position % len(options.prompts)]
    key = "caption" if row.get("caption") or "text" not in row else "text"
    text = row.get(key)
    if not isinstance(text, str) or not text.strip():
        # A key that is refused by name explains more than what is missing.
        refuse_keys(row, read=read)
        raise DataError(
            f"found {one_line(', '.join(row) or 'nothing', 200)}; expected turns in"
            " `conversations` or `messages`, or a `caption` (or `text`) that is not blank",
            kind="turns",
        )
    kind = str(row.get("kind") or options.kind or "caption")
    return caption_record(row, images, key, prompt, name=name, kind=kind, read=read)


def caption_record(
    row: Mapping[str, Any],
    images: Images,
    key: str,
    prompt: str,
    *,
    name: str,
    kind: str,
    read: Collection[str] = (),
) -> Record:
    """The record of a row with a caption in `key`: the images, the prompt, and the caption."""
    refuse_keys(row, read=read)
    if not images:
        raise DataError(
            "found a caption without an image; expected one image at least: add it or remove the"
            " row",
            kind="marks",
        )
    if IMAGE_MARK in row[key]:
        raise DataError(
            f"the caption contains {IMAGE_MARK}; expected plain text: remove the mark", kind="marks"
        )
    talk = Talk()
    system = system_text(row, talk)
    turns = (
        *([Turn("system", system)] if system else []),
        Turn("user", f"{IMAGE_MARK}\n" * len(images) + prompt),
        Turn("assistant", row[key]),
    )
    refuse_marks(turns)
    return Record(_writable(name), turns, images, kind, unread(row, talk, turns, (key, *read)))


def conversation_record(
    row: Mapping[str, Any],
    images: Images,
    *,
    name: str,
    kind: str,
    mark: Mark = "strict",
    read: Collection[str] = (),
) -> Record:
    """The record of a row with turns, with as many marks as images."""
    refuse_keys(row, read=read)
    talk = read_talk(row)
    turns = talk.turns
    # The Cauldron and FineVision write no marks at all: images stand before their texts.
    if images and (mark == "prepend" or row.get("texts") is not None):
        turns = put_first(turns, "\n".join([IMAGE_MARK] * len(images)))
    refuse_marks(turns)
    marks = sum(turn.text.count(IMAGE_MARK) for turn in turns)
    if marks != len(images):
        raise DataError(
            f"record {one_line(name, 60)} has {marks} {IMAGE_MARK} marks and {len(images)} images;"
            " expected one mark per image: correct the marks in its turns or its list of images"
            + (", or set the option mark: prepend" if not marks else ""),
            kind="marks",
        )
    check_order(turns)
    kind = str(row.get("kind") or kind)
    return Record(_writable(name), tuple(turns), images, kind, unread(row, talk, turns, read))


def unread(
    row: Mapping[str, Any], talk: Talk, turns: Sequence[Turn], read: Collection[str] = ()
) -> tuple[str, ...]:
    """What was not read of a row, each once: its keys, those of its turns, grounding tags.

    With a format whose images are not in the row, images inside the turns are listed too.
    """
    own = unread_keys(row, {*_READ, *talk.read, *read})
    inside = () if "images" in read or not talk.images else ("images inside the turns",)
    beside = (
        name
        for key in IMAGE_KEYS
        for image in (_listed(row[key]) if key in read and row.get(key) else ())
        if isinstance(image, dict)
        for name in unread_keys(image, ("type", *IMAGE_VALUES), f"{key}[].")
    )
    found = (*own, *inside, *beside, *talk.unread, *grounding_marks(turns))
    return tuple(dict.fromkeys(found))


def check_order(turns: Sequence[Turn]) -> None:
    """DataError unless user and assistant alternate, the user first, and no answer is blank."""
    spoken = turns[1:] if turns[0].role == "system" else turns
    expected = [("user", "assistant")[index % 2] for index in range(len(spoken))]
    if [turn.role for turn in spoken] != expected:
        roles = ", ".join(turn.role for turn in turns[:8])
        raise DataError(
            f"the turns are {roles}; expected user and assistant alternately, the user first, after"
            " a system turn at most: merge or reorder them",
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
    """The name of a record: the row's `id`, or its position where that is missing or empty."""
    found = row.get("id")
    return _writable(str(position if found is None or found == "" else found))


def _writable(name: str) -> str:
    """A name that UTF-8 can hold: bytes of file names that are none in it are escaped, as the
    name is written into shards and reports.
    """
    return name if name.isascii() else name.encode(errors="backslashreplace").decode()


def row_images(row: Mapping[str, Any], folder: Path) -> Images:
    """The images of a row: in `images` or `image`, one or a list, or inside its turns."""
    listed = [_listed(row[key]) for key in IMAGE_KEYS if row.get(key)]
    if may_hold_images(row) and (inline := read_talk(row).images):
        listed.append(inline)
    # Given twice but alike, they are meant once.
    if any(other != listed[0] for other in listed[1:]):
        raise DataError(
            f"found images in more than one place ({one_line(listed, 80)}); expected them in"
            " `images`, in `image` or inside the turns: remove the others",
            kind="image",
        )
    return tuple(image_from(value, folder) for value in (listed[0] if listed else ()))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
