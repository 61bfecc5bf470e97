"""The files below a folder, through links to folders too: one walk for all that reads folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path, *, hidden: bool = False) -> Iterator[str]:
    """Paths of the files below `folder`, from there, with `/`: sorted within each folder, those
    at the top first.

    Links are followed, except to a folder that they lie in, which would never end. `hidden`
    says whether files and folders whose names begin with a dot count too.
    """
    return _below(folder, "", frozenset(), hidden=hidden)


def _below(
    place: Path, start: str, above: frozenset[tuple[int, int]], *, hidden: bool
) -> Iterator[str]:
    """The files in `place` and below it, each with `start` before its name; `above` are device
    and inode of the folders that it lies in.
    """
    try:
        found = place.stat()
        # The first step of a walk lists one folder, and tells links to folders from those to files.
        _, folders, names = next(os.walk(place))
    except (OSError, StopIteration):
        return  # It is gone, or may not be read; so os.walk leaves it out.
    own = (found.st_dev, found.st_ino)
    if own in above:
        return
    yield from (start + name for name in sorted(names) if hidden or name[0] != ".")
    for name in sorted(folders):
        if hidden or name[0] != ".":
            yield from _below(place / name, f"{start}{name}/", above | {own}, hidden=hidden)
