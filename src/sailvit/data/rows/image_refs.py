"""Images as rows hold them: bytes, paths, `file:` and `data:` URIs, base64, or structs of
them.
"""

from __future__ import annotations

import re
from base64 import b64decode
from os.path import normpath
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from sailvit.core.errors import DataError, one_line

_SCHEME = re.compile(r"data:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)
"""The beginning of an address that is not a path."""
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{32,}={0,2}\s*")
_BASE64_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk0", "SUkqA", "TU0AK", "AAAA")
"""Beginnings of base64 of JPEG, PNG, GIF, WebP, BMP, TIFF (both byte orders) and AVIF."""
_LONGEST_NAME = 255
"""Most bytes of one part of a path on common file systems."""
IMAGE_VALUES = ("bytes", "image_url", "image", "url", "path", "base64", "data", "source")
"""Keys of a struct that may hold an image; the first one that is not empty counts."""
_SHOWN = 80


def image_path(folder: Path, name: str) -> Path:
    """The path of an image named by a row; DataError when it leads out of `folder`.

    Relative names start at `folder`. An absolute one is accepted when it lies in `folder`, as
    written or after links are followed. Links inside the folder are followed, wherever they
    lead.
    """
    if "\0" in name or any(
        len(part.encode(errors="replace")) > _LONGEST_NAME for part in name.split("/")
    ):
        raise DataError(
            f"found image {one_line(repr(name), _SHOWN)} of {len(name):,} characters; expected a"
            " path, or base64 of an encoded image: write it anew",
            kind="image",
        )
    inside = normpath(name)
    if PurePosixPath(inside).is_absolute():
        inside = _below(folder, inside) or ".."
    if inside.split("/")[0] == "..":
        raise DataError(
            f"image {one_line(repr(name), 200)} leads out of {folder}; expected a path inside that"
            " folder: let `images` name the folder that holds it",
            kind="path",
        )
    return folder / inside


def image_from(value: Any, folder: Path) -> Path | bytes:
    """An image given as bytes, path, URI or base64, or as a struct of them, bytes first."""
    found = value
    for _ in range(3):  # {"type": "image", "source": {"data": ...}} is the deepest known.
        if not isinstance(found, dict):
            break
        found = next((found[key] for key in IMAGE_VALUES if found.get(key)), None)
    if isinstance(found, bytes) and found:
        return found
    if isinstance(found, str) and found.strip():
        return _addressed(found.strip(), folder)
    raise DataError(
        f"found image {one_line(repr(value) if value == '' else value, _SHOWN)}; expected bytes, a"
        " path, base64, or a struct of `bytes` and `path`",
        kind="image",
    )


def _addressed(address: str, folder: Path) -> Path | bytes:
    """The image that a string gives as path, URI or base64."""
    scheme = _SCHEME.match(address)
    if scheme is None:
        encoded = address.startswith(_BASE64_STARTS) or len(address) > 4 * _LONGEST_NAME
        if encoded and _BASE64.fullmatch(address) and (content := _decoded(address)):
            return content
        return image_path(folder, address)
    if scheme[0].lower() == "data:":
        return _data_uri(address)
    if scheme[0].lower() == "file://":
        host, slash, path = address[len("file://") :].partition("/")
        if slash and host.lower() in ("", "localhost"):
            return image_path(folder, "/" + unquote(path))
        raise DataError(
            f"image {one_line(address, _SHOWN)} names a file on another machine; expected"
            " file:///path, or a path: copy it here",
            kind="path",
        )
    raise DataError(
        f"image {one_line(address, _SHOWN)} is a URL; expected a path: download it first",
        kind="missing file",
    )


def _below(folder: Path, path: str) -> str | None:
    """An absolute path relative to `folder`; None when it lies elsewhere."""
    top = Path(normpath(folder.absolute()))
    if (found := Path(path)).is_relative_to(top):
        return found.relative_to(top).as_posix()
    found, top = found.resolve(), top.resolve()
    return found.relative_to(top).as_posix() if found.is_relative_to(top) else None


def _data_uri(address: str) -> bytes:
    """The bytes that a `data:` URI holds."""
    form, mark, content = address.partition(";base64,")
    if not mark:
        raise DataError(
            f"image {one_line(form, 30)} is a data URI without base64; expected"
            " data:image/png;base64,...: write it anew",
            kind="base64",
        )
    try:
        return b64decode("".join(unquote(content).split()), validate=True)
    except ValueError as error:
        raise DataError(
            f"image {one_line(address, 30)} is not base64 ({error}); write it anew", kind="base64"
        ) from error


def _decoded(text: str) -> bytes | None:
    """The bytes of base64 text; None for other text."""
    try:
        return b64decode("".join(text.split()), validate=True) or None
    except ValueError:
        return None
