"""Files that appear when they are whole: a crash leaves the previous one as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write what becomes the file `path` when the block ends without an error.

    It lies beside the file, not in /tmp: a rename is atomic on one file system only.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    yield draft
    draft.replace(path)
