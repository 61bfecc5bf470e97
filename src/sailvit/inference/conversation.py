"""Chat messages in OpenAI's and transformers' layout as records, from which prompts are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from sailvit.core.errors import DataError, one_line
from sailvit.core.records import IMAGE_MARK, ImageLike, Record, Turn
from sailvit.data.processing.given import as_image
from sailvit.data.rows.image_refs import image_from
from sailvit.data.rows.pieces import Pieces, read_pieces
from sailvit.data.rows.turns import ROLES

Message: TypeAlias = Mapping[str, Any]
"""`{"role": ..., "content": ...}`; the content is a text or a list of pieces of text and
image."""
ReadImage: TypeAlias = Callable[[Any], ImageLike]
"""What finds the image that a piece names."""

_ROOT = Path("/")
_HELD = ("url", "path", "bytes", "data")
"""Keys of a struct that may hold an image."""
_UNUSED = ("tool_calls", "function_call", "refusal", "audio")
"""Keys of a message that would change what is said and are not rendered."""


def local_image(value: Any) -> ImageLike:
    """An image that a piece or a caller gives: whatever `as_image` takes, a `data:` or `file:`
    URI, or a struct that holds one of them.

    It reads any file of this machine, so it is for the user's own messages only.
    """
    if isinstance(value, Mapping):
        return local_image(next((value[key] for key in _HELD if value.get(key)), None))
    # A plain path is relative to where the caller works, not to the root of a data set.
    addressed = isinstance(value, str) and (value.startswith("data:") or "://" in value)
    return image_from(value, _ROOT) if addressed else as_image(value)


def question(images: Any, text: str, system: str | None = None) -> Record:
    """The record from which the prompt of a question about images is made."""
    given = list(images) if isinstance(images, list | tuple) else [images]
    pictures = tuple(as_image(image) for image in given if image is not None)
    if IMAGE_MARK not in text:
        # Where LLaVA's data has them.
        text = f"{IMAGE_MARK}\n" * len(pictures) + text
    before = () if system is None else (Turn("system", system),)
    return Record("question", (*before, Turn("user", text)), pictures)


def conversation(
    messages: Sequence[Message], images: Sequence[Any] = (), *, read_image: ReadImage = local_image
) -> Record:
    """The record of a conversation that a user's message ends; the answer to it is generated.

    An image is part of its piece (`{"type": "image", "image": ...}`, `{"type": "image_url",
    "image_url": {"url": ...}}`), or, for pieces without one (`{"type": "image"}`) and `<image>`
    marks, the next of `images`. Images at the start of a message get a line each, as in
    training.

    Raises:
        DataError: a message is no message, or images and their places differ in number.
    """
    found: list[Any] = []
    turns = []
    for message in _listed(messages):
        pieces = _content(message, len(found))
        found += pieces.images
        turns.append(Turn(_role(message), pieces.text))
    if found and images:
        raise DataError(
            f"found {len(found)} images in the messages and {len(images)} beside them; expected"
            " all of them in one place",
            kind="marks",
        )
    shown = tuple(map(read_image, found or images))
    _check(turns, len(shown))
    return Record("conversation", tuple(turns), shown)


def _listed(messages: Any) -> Sequence[Message]:
    if isinstance(messages, str | Mapping) or not messages:
        raise DataError(
            f"found messages {one_line(repr(messages), 60)}; expected a list of messages, each with"
            " `role` and `content`",
            kind="turns",
        )
    return list(messages)


def _check(turns: Sequence[Turn], shown: int) -> None:
    """DataError unless the user has the last word, and every image has a place."""
    if turns[-1].role != "user":
        raise DataError(
            f"the last message is the {turns[-1].role}'s; expected the user's, which is answered",
            kind="turns",
        )
    marks = sum(turn.text.count(IMAGE_MARK) for turn in turns)
    if marks != shown:
        raise DataError(
            f"found {marks} places of images ({IMAGE_MARK} or a piece) and {shown} images;"
            f" expected one image for each place; a text cannot hold the word {IMAGE_MARK}",
            kind="marks",
        )


def _role(message: Message) -> Any:
    role = ROLES.get(str(message.get("role")).lower())
    if role is None:
        raise DataError(
            f"found a message of role {one_line(repr(message.get('role')), 40)}; expected one of"
            " system, user, assistant",
            kind="turns",
        )
    return role


def _content(message: Any, shown: int) -> Pieces:
    content = message.get("content") if isinstance(message, Mapping) else None
    if content is None and isinstance(message, Mapping) and message.get("role") == "assistant":
        # So clients write an answer without text.
        content = ""
    if not isinstance(content, str | list):
        raise DataError(
            f"found message {one_line(repr(message), 80)}; expected `role`, and `content` that is a"
            " text or a list of pieces",
            kind="turns",
        )
    if used := [key for key in _UNUSED if message.get(key)]:
        raise DataError(f"found `{used[0]}` in a message; only texts and images are read")
    return Pieces(text=content) if isinstance(content, str) else read_pieces(content, shown, "")
