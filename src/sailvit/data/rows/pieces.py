"""Messages whose content is a list of pieces, texts and images, as in OpenAI's layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sailvit.core.errors import DataError, one_line
from sailvit.core.records import IMAGE_MARK
from sailvit.data.rows.keys import has_content, unread_keys

_TEXT_TYPES = frozenset(("text", "input_text", "output_text"))
_IMAGE_TYPES = frozenset(("image", "image_url", "input_image"))
_IMAGES = ("image_url", "image", "url", "path", "base64", "bytes", "data", "source")
"""Keys of a piece that may hold its image; the first one that is not empty counts."""


@dataclass
class Pieces:
    """The pieces of a message, joined."""

    text: str = ""
    """Their texts, joined, with a mark for each image."""
    images: list[Any] = field(default_factory=list)
    """The images in pieces; a piece without one stands for the next image of the row."""
    unread: list[str] = field(default_factory=list)
    """Keys of pieces that hold a value and were not read, such as `detail`."""


def read_pieces(content: Any, shown: int, where: str) -> Pieces:
    """The pieces of a message; `shown` images came before it, and names of unread keys begin
    with `where`.

    Images at the start of a message get a line each, as LLaVA's rows have them, so that a model
    trained on either layout is asked in the form that it knows.
    """
    pieces = Pieces()
    for piece in content if isinstance(content, list) else [content]:
        # Some sets write bare strings between the images.
        fields = {"text": piece} if isinstance(piece, str) else piece
        kind = _kind(fields)
        leading = not pieces.text.replace(IMAGE_MARK, "").strip()
        if leading and pieces.text.endswith(IMAGE_MARK) and not _begins_blank(kind, fields):
            pieces.text += "\n"
        if kind == "text":
            pieces.text += fields["text"]
            pieces.unread += unread_keys(fields, ("type", "text"), where)
        else:
            _check_index(fields, shown)
            shown += 1
            pieces.text += IMAGE_MARK
            _take_image(fields, pieces, where)
    return pieces


def _begins_blank(kind: str, piece: Mapping[str, Any]) -> bool:
    """Whether a piece is a text that is empty or begins with a blank of its own."""
    return kind == "text" and (not piece["text"] or piece["text"][0].isspace())


def _kind(piece: Any) -> str:
    """`text` or `image`; DataError for a piece of another type."""
    if isinstance(piece, dict):
        kind = piece.get("type")
        if kind in _TEXT_TYPES or (kind is None and "text" in piece):
            if isinstance(piece.get("text"), str) and not _held(piece):
                return "text"
        elif kind in _IMAGE_TYPES or (kind is None and _held(piece)):
            return "image"
    raise DataError(
        f"found content {one_line(piece, 80)}; expected pieces of type text or image"
        " (text, image, image_url, input_text, input_image)",
        kind="turns",
    )


def _held(piece: Mapping[str, Any]) -> str | None:
    """The key under which a piece holds an image."""
    return next((key for key in _IMAGES if has_content(piece.get(key))), None)


def _take_image(piece: Mapping[str, Any], pieces: Pieces, where: str) -> None:
    key = _held(piece)
    if key is not None:
        value = piece[key]
        pieces.images.append(value)
        if key == "image_url" and isinstance(value, dict):
            pieces.unread += unread_keys(value, ("url",), f"{where}image_url.")
    elif has_content(piece.get("file_id")):
        raise DataError(
            f"found an image by `file_id` ({one_line(piece['file_id'], 60)}); expected a path or"
            " the image itself: download it first",
            kind="missing file",
        )
    pieces.unread += unread_keys(piece, ("type", "index", str(key)), where)


def _check_index(piece: Mapping[str, Any], shown: int) -> None:
    """DataError for a piece whose `index` is not its place: marks take images in order."""
    index = piece.get("index")
    if index is not None and index != shown:
        raise DataError(
            f"found an image piece of `index` {one_line(index, 20)} as number {shown}; expected"
            " images in the order of their pieces: reorder `images`",
            kind="marks",
        )
