"""PNG files with longer texts than Pillow reads: the same files without these texts."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

ORIENTED = (b"Raw profile type exif", b"XML:com.adobe.xmp")
"""Keywords of the texts that may hold an image's orientation."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
"""Types of chunks whose length Pillow limits; iCCP is a colour profile, not applied here."""
_MOST = 1 << 20
"""Most bytes of a text that is kept: Pillow decompresses no more."""


def refused_for_text(error: BaseException | None) -> bool:
    """Whether Pillow refuses a PNG for the length of its texts alone."""
    return isinstance(error, ValueError) and "MAX_TEXT" in str(error)


def without_text(png: bytes) -> bytes:
    """The PNG without texts and colour profile, but with short texts that may hold its
    orientation.
    """
    if not png.startswith(_SIGNATURE):
        return png
    return _SIGNATURE + b"".join(chunk for chunk in _chunks(png) if not _droppable(chunk))


def _chunks(png: bytes) -> Iterator[bytes]:
    """Each chunk with its length, type and checksum; the last one may be cut."""
    at = len(_SIGNATURE)
    while at < len(png):
        # A cut file may end within a length.
        length = struct.unpack(">I", png[at : at + 4].rjust(4, b"\0"))[0] + 12
        yield png[at : at + length]
        at += length


def _droppable(chunk: bytes) -> bool:
    if chunk[4:8] not in _TEXTS:
        return False
    keyword, _, text = chunk[8:-4].partition(b"\0")
    return keyword not in ORIENTED or len(text) > _MOST or _expands(chunk[4:8], text)


def _expands(kind: bytes, text: bytes) -> bool:
    """Whether a text is compressed and longer than `_MOST`."""
    if kind == b"zTXt":
        stream = text[1:]
    elif kind == b"iTXt" and text[:1] == b"\1":
        stream = text[2:].split(b"\0", 2)[-1]
    else:
        return False
    reading = zlib.decompressobj()
    try:
        # Bounded, as a text of a few kilobytes may unpack to gigabytes.
        reading.decompress(stream, _MOST)
    except zlib.error:
        return True
    return bool(reading.unconsumed_tail)
