"""Where files are kept that can be made or fetched again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(what: str) -> Path:
    """The folder for one kind of file, below `$SAILVIT_CACHE`, else `$XDG_CACHE_HOME/sailvit`,
    else `~/.cache/sailvit`.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sailvit"
    return Path(os.environ.get("SAILVIT_CACHE") or base) / what
