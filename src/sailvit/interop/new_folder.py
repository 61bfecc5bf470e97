"""A folder that appears when everything in it is written, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sailvit.core.errors import RunError
from sailvit.core.ownership import others


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A context with a draft of the folder `out`, which gets its name when the context ends well.

    Raises:
        RunError: `out` is there already and holds something, or it cannot be written.
    """
    if out.exists() and (not out.is_dir() or others(out)):
        raise RunError(f"{out} is there already; name a new folder with --out")
    # A name of this process's own: what lies under any other is somebody's.
    draft = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        draft.mkdir(parents=True)
        yield draft
        if out.exists():
            out.rmdir()
        draft.rename(out)
    except OSError as error:
        raise RunError(
            f"{out} cannot be written ({error.strerror or error}); make room, or name another"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
