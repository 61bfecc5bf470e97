"""Where files are kept that can be made or fetched again."""

from __future__ import annotations

import os
from pathlib import Path

from sailvit.core.errors import DataError


def cache_folder(what: str) -> Path:
    """The folder for one kind of file, below `$SAILVIT_CACHE`, else `$XDG_CACHE_HOME/sailvit`,
    else `~/.cache/sailvit`.

    Raises:
        DataError: none of them is known, as in a container whose user has no entry and no home.
    """
    if own := os.environ.get("SAILVIT_CACHE"):
        return Path(own) / what
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "sailvit" / what
    try:
        return Path.home() / ".cache" / "sailvit" / what
    except RuntimeError as error:
        raise DataError(
            "this user has no home folder, below which counts and fetched files would be kept; name"
            " a folder for them in the environment variable SAILVIT_CACHE"
        ) from error
