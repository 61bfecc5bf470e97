"""Roots and the names below them: which are remote, which are refused, and the files of plain
folders.
"""

from __future__ import annotations

import re
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from sailvit.core.errors import DataError

_SCHEMES = ("s3", "gs", "az", "http", "https")


class RemoteFile(NamedTuple):
    """A file below a root, with its size and checksum where they are known."""

    name: str
    """Its path below the root, with `/`."""
    size: int | None = None
    """Bytes it must have; None: any."""
    crc32: int | None = None
    """Checksum it must have; None: any."""


def is_remote(path: str) -> bool:
    """Whether a path is a URL, and not a `file://` one."""
    return "://" in path and not path.startswith("file://")


def check_root(root: str) -> None:
    """DataError for a URL that cannot be a root; no server is asked."""
    parts = urlsplit(root)
    if parts.scheme not in _SCHEMES or not parts.netloc:
        raise DataError(
            f"{root} is not a root to read from; expected a folder or"
            f" {'://, '.join(_SCHEMES)}://..."
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise DataError(
            f"the URL at {parts.hostname} carries a login, `?` or `#`; credentials come from"
            " the environment, and names are put behind the URL"
        )
    if find_spec("obstore") is None:
        raise DataError(
            f"reading {root} needs obstore; install it with: pip install 'sailvit[remote]'"
        )


def checked_name(name: str) -> str:
    """The name, which comes from a manifest; DataError unless it stays below the root."""
    # A server would decode `%` and cut at `?`, and the name would lead elsewhere.
    odd = re.search(r"[\\%?#\x00-\x1f\x7f]", name)
    if odd or any(part in ("", ".", "..") for part in name.split("/")):
        raise DataError(
            f"shard name {name!r} is refused; expected a relative path below the root, without"
            " `..`, `%`, `?` and `#`",
            kind="shard name",
        )
    return name


def own_file(root: str, shard: RemoteFile) -> Path:
    """The path of a plain folder's file; DataError when it has another size than expected."""
    path = Path(root, checked_name(shard.name))
    if not path.is_file():
        raise DataError(
            f"{path} is not there; check the path, or restore the file", kind="missing shard"
        )
    found = path.stat().st_size
    if shard.size not in (None, found):
        raise _changed(path, f"has {found:,} bytes, expected {shard.size:,}")
    return path


def verified(data: bytes, path: Path, crc32: int | None) -> bytes:
    """The file's bytes; DataError when they have another checksum than expected."""
    found = zlib.crc32(data)
    if crc32 not in (None, found):
        raise _changed(path, f"has crc32 {found:08x}, expected {crc32:08x}")
    return data


def _changed(path: Path, said: str) -> DataError:
    return DataError(
        f"{path} {said}; it changed since it was indexed: restore it or index again",
        kind="changed shard",
    )
