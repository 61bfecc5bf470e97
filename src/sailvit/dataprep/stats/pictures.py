"""Small pictures of records, for the page of statistics."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sailvit.core.records import Source
from sailvit.dataprep.records.joined import Joined
from sailvit.dataprep.records.record_view import DAMAGE, RecordView
from sailvit.dataprep.stats.stats import evenly

_SIDE = 192
"""Longest side of a picture, in pixels: about 6 KB each as JPEG."""


def sample_pictures(sources: Mapping[str, Source], count: int = 24) -> list[dict[str, Any]]:
    """Records spread over the sources, each with its position, text and first image; unreadable
    ones are left out.
    """
    joined = Joined(sources)
    places = evenly(len(joined), min(count, len(joined)))
    return [shown for place in places if (shown := _shown(joined, place))]


def copy_pictures(
    sources: Mapping[str, Source], examples: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Pairs of an original and its copy, for the examples of copies that `survey` returns."""
    joined = Joined(sources)
    pairs = []
    for example in examples:
        one, other = (_shown(joined, joined.place(**example[side])) for side in ("of", "copy"))
        if one and other:
            pairs.append({"first": one, "again": other})
    return pairs


def small_picture(pixels: NDArray[np.uint8]) -> str:
    """uint8[H, W, 3] as a `data:` URI of a small JPEG."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _shown(joined: Joined, place: int) -> dict[str, Any] | None:
    name, position = joined.find(place)
    try:
        view = RecordView(position, joined[place])
        first = view.pixels[0] if view.pixels else None
    except DAMAGE:
        return None
    return {
        "source": name,
        "position": position,
        "id": view.record.id,
        "kind": view.record.kind,
        "text": view.answers[:300],
        "image": None if first is None else small_picture(first),
        "size": str(view.sizes[0]) if view.sizes else None,
        "images": len(view.record.images),
    }
