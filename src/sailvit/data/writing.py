"""Records as rows of LLaVA JSON, and their images as files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from sailvit.core.errors import DataError
from sailvit.core.records import ImageLike, Record

SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}
"""LLaVA's words for who speaks."""
MAGIC = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp", b"GIF8": "gif"}
"""How encoded images begin, with the ending and media type of their kind."""


def llava_row(record: Record, images: list[str]) -> dict[str, Any]:
    """A record as a row that format `llava` reads, with its images under these names."""
    turns = [{"from": SPEAKERS[turn.role], "value": turn.text} for turn in record.turns]
    shown: dict[str, Any] = (
        {"image": images[0]} if len(images) == 1 else {"images": images} if images else {}
    )
    return {"id": record.id, **shown, "conversations": turns, "kind": record.kind}


def encoded(image: ImageLike) -> tuple[bytes, str]:
    """An image as the bytes of a file, and their kind (`png`, `jpeg`, ...); drawn and decoded ones become PNG."""
    if isinstance(image, Path | bytes):
        data = _read(image) if isinstance(image, Path) else image
        kind = next((kind for magic, kind in MAGIC.items() if data.startswith(magic)), None)
        if kind is not None:
            return data, kind
        return png(_decoded(data, image)), "png"
    return png(image if isinstance(image, np.ndarray) else image.pixels()), "png"


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


def _decoded(data: bytes, image: Path | bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return np.array(opened.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        name = image if isinstance(image, Path) else f"an image of {len(image)} bytes"
        # Pillow's own words for it hold an address in memory, other ones in every run.
        found = "no known kind" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(
            f"{name} is no image that can be read ({found}); drop its record", kind="image"
        ) from error
