"""Files that appear when they are whole: a crash leaves the previous one as it was. Others may
read them as they may read any new file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write what becomes the file `path` when the block ends without an error.

    It lies beside the file, not in /tmp: a rename is atomic on one file system only.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    yield draft
    draft.replace(path)


def set_usual_mode(folder: Path) -> None:
    """Give files of weights below `folder` the mode that a new file gets there.

    safetensors writes through a temporary file that its owner alone may read, and keeps that
    mode.
    """
    # By a file, as the process's umask cannot be asked for without changing it.
    sample = folder / ".mode"
    sample.touch()
    mode = S_IMODE(sample.stat().st_mode)
    sample.unlink()
    for path in folder.rglob("*.safetensors"):
        path.chmod(mode)
