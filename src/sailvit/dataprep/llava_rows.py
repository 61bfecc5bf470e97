"""Records as rows of LLaVA JSON, and images as the bytes of files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sailvit.core.errors import DataError
from sailvit.core.records import ImageLike, Record, Turn
from sailvit.data.processing.images import load_image, looks_alike_everywhere

SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}
"""LLaVA's names of the roles."""
MAGIC = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp", b"GIF8": "gif"}
"""First bytes of image files; the value serves as file ending and in the media type."""


def llava_row(record: Record, images: list[str]) -> dict[str, Any]:
    """A record as a row that format `llava` reads; `images` are the names of its image files."""
    turns = [
        {"from": SPEAKERS[turn.role], "value": turn.text, **turn_flags(turn)}
        for turn in record.turns
    ]
    shown: dict[str, Any] = (
        {"image": images[0]} if len(images) == 1 else {"images": images} if images else {}
    )
    return {"id": record.id, **shown, "conversations": turns, "kind": record.kind}


def turn_flags(turn: Turn) -> dict[str, Any]:
    """A turn's other properties, under keys that every reader of rows understands."""
    flags: dict[str, Any] = {} if turn.learnt else {"loss": False}
    return {**flags, "reasoning_content": turn.reasoning} if turn.reasoning else flags


def encoded(image: ImageLike) -> tuple[bytes, str]:
    """An image as the bytes of a file, and their kind (`png`, `jpeg`, ...). Files keep their
    bytes; drawn and decoded images become PNG.
    """
    if isinstance(image, Path | bytes):
        data = _read(image) if isinstance(image, Path) else image
        kind = next((kind for magic, kind in MAGIC.items() if data.startswith(magic)), None)
        if kind is not None:
            return data, kind
        return png(load_image(image)), "png"
    return png(image if isinstance(image, np.ndarray) else image.pixels()), "png"


def portable(image: ImageLike) -> tuple[bytes, str]:
    """An image as a file that every program decodes to the pixels that training sees.

    Images that programs decode differently (rotated, transparent, 16-bit, animated, CMYK)
    become PNG, which is several times as large as a JPEG.
    """
    data, kind = encoded(image)
    if looks_alike_everywhere(data):
        return data, kind
    return png(load_image(image)), "png"


def png(pixels: np.ndarray) -> bytes:
    """uint8[H, W, 3] as the bytes of a PNG, without loss."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{path} cannot be read ({reason}); restore it or drop its record", kind="missing file"
        ) from error
