"""Images of requests: data URIs, and files of one folder. Nothing else is read or fetched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sailvit.core.errors import DataError, one_line
from sailvit.core.records import ImageLike
from sailvit.data.processing.images import load_image
from sailvit.data.rows.image_refs import image_from
from sailvit.inference.serving.limits import Limits, RefusedError, too_large

_STATUSES = {"image size": 413, "image": 422, "base64": 422}
"""HTTP statuses by what is wrong with an image; others are 400."""


def read_media(value: Any, limits: Limits) -> ImageLike:
    """The image that a piece of a message names, decoded once to see that it can be.

    Raises:
        RefusedError: it may not be read, is too large, or is no image.
    """
    address = value.get("url") if isinstance(value, Mapping) else value
    if not isinstance(address, str):
        raise RefusedError(400, f"found image {one_line(repr(value), 60)}; expected a data URI")
    scheme = address[:8].lower()
    if scheme.startswith("data:"):
        # Whatever type it claims: the content decides.
        image = _checked(address)
    elif scheme.startswith("file://"):
        image = _read(_file(address, limits.media), limits)
    else:
        raise RefusedError(
            400,
            f"found image {one_line(address, 60)}; expected a data URI"
            " (data:image/png;base64,...): this server fetches nothing",
            code="invalid_image_url",
        )
    try:
        load_image(image, max_pixels=limits.pixels)
    except DataError as error:
        raise _refused(error) from error
    return image


def _read(path: Path, limits: Limits) -> bytes:
    # At once, so that what was checked is what is answered about.
    with path.open("rb") as file:
        content = file.read(limits.body + 1)
    if len(content) > limits.body:
        raise too_large(limits)
    return content


def _checked(address: str) -> ImageLike:
    try:
        return image_from(address, Path("/"))
    except DataError as error:
        raise _refused(error) from error


def _file(address: str, media: Path | None) -> Path:
    """The file, if it lies in the folder after all links are followed."""
    parts = urlsplit(address)
    name = unquote(parts.path)
    if media is None or parts.netloc not in ("", "localhost") or "\0" in name:
        raise _outside()
    top = media.resolve()
    # Below the folder also where an absolute path repeats its name.
    found = Path(name)
    if not found.is_relative_to(media.absolute()) and not found.is_relative_to(top):
        found = top / name.lstrip("/")
    try:
        found = found.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise _outside() from error
    # The same words for what is missing and for what lies elsewhere: they tell nothing about
    # the other files of this machine.
    if not found.is_relative_to(top) or not found.is_file():
        raise _outside()
    return found


def _outside() -> RefusedError:
    return RefusedError(
        400,
        "the image is no file in this server's media folder; send a data URI, or the path of a"
        " file there",
        code="invalid_image_url",
    )


def _refused(error: DataError) -> RefusedError:
    return RefusedError(_STATUSES.get(error.kind, 400), str(error), code="invalid_image")
