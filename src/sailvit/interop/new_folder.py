"""A folder that appears when everything in it is written, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from sailvit.core.errors import RunError
from sailvit.core.lock import RunLock, is_held
from sailvit.core.ownership import others

_LOCK = "draft.lock"


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A context with a draft of the folder `out`, which gets its name when the context ends well.

    Raises:
        RunError: `out` is there already and holds something, or it cannot be written.
    """
    if out.exists() and (not out.is_dir() or others(out)):
        raise RunError(f"{out} is there already; name a new folder with --out")
    _remove_left(out)
    # A name of this process's own: what lies under any other is somebody's.
    place = out.with_name(f".{out.name}.{os.getpid()}.part")
    lock = RunLock(place / _LOCK)
    draft = place / out.name
    try:
        draft.mkdir(parents=True)
        lock.acquire()
        yield draft
        if out.exists():
            out.rmdir()
        draft.rename(out)
    except OSError as error:
        raise RunError(
            f"{out} cannot be written ({error.strerror or error}); make room, or name another"
        ) from error
    finally:
        lock.release()
        shutil.rmtree(place, ignore_errors=True)


def _remove_left(out: Path) -> None:
    """Remove drafts of `out` that killed processes left: a whole model each, under names that
    `ls` does not show.

    Their locks tell that they are ours, and that nobody writes them any more.
    """
    for lock in out.parent.glob(f".{escape(out.name)}.*.part/{_LOCK}"):
        if is_held(lock) is False:
            shutil.rmtree(lock.parent, ignore_errors=True)
