"""Settings of sources, of their mixture, and of what may be left out of them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from sailvit.core.config import Config
from sailvit.core.recipe.types import Positive, Share


class SourceConfig(Config):
    """Where records come from; `format` names a registered reader."""

    format: str
    """Name of the reader: `llava`, `captions`, `world`, ..."""
    path: str | None = None
    """File or folder, for readers that read one; relative paths start at the recipe's
    folder."""
    images: str | None = None
    """Folder that relative image paths start from; None means the folder of `path`."""
    options: dict[str, Any] = {}
    """Settings of that reader, checked by it."""


class PortionConfig(Config):
    """One source's part in a stage's mixture."""

    share: Positive
    """Share of the samples, in any unit."""
    epochs: Positive | None = None
    """Most passes over the source; after them the other sources go on in their own
    proportions."""


class QuarantineConfig(Config):
    """How many unreadable records a run tolerates; each is left out of its pack, and the order
    of the others stays as it was.
    """

    share: Share = 0.01
    """Largest share of the records read, per source and rank."""
    allow: Annotated[int, Field(ge=0)] = 10
    """Records that may be bad, per source and rank, before the share counts."""
    timeout: Positive | None = 60.0
    """Seconds after which reading one record is given up; None: no limit."""
