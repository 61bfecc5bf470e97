"""Sources of a recipe that is written for the user: their names, places and formats."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.data.sources.detect import detect
from sailvit.recipes.dialect import write_line

CAPTIONS = ("captions", "folder", "webdataset")
"""Formats whose records are mostly one image and its caption."""


def named_sources(data: Sequence[str], images: str | None) -> dict[str, SourceConfig]:
    """The configs of the sources at the paths, each named after its path's last part."""
    if not data:
        raise DataError("no data was named; give at least one --data PATH")
    found: dict[str, SourceConfig] = {}
    for path in data:
        config = detect(path, images=images)
        stem = (
            Path(path.rstrip("/*")).stem if "://" not in path else path.rstrip("/").split("/")[-1]
        )
        base = re.sub(r"\W+", "_", stem).strip("_").lower() or "data"
        if base[0].isdigit():
            base = f"data_{base}"
        name = next(
            n for i in range(len(data)) if (n := base if not i else f"{base}_{i + 1}") not in found
        )
        found[name] = config.model_copy(update={"path": local_place(config.path or path)})
    return found


def local_place(value: str) -> str:
    """`value` as an absolute path, if it is on this machine, so that the recipe's own folder
    does not matter; else as it is.
    """
    path = Path(value).expanduser()
    globbed = any(mark in value for mark in "*?[") and "://" not in value
    return str(path.absolute()) if path.exists() or globbed else value


def source_line(name: str, config: SourceConfig) -> str:
    """A line of a recipe's `sources`."""
    return f"  {write_line(name)}: {write_line(config.model_dump(exclude_defaults=True))}"


def caption_sources(configs: Mapping[str, SourceConfig]) -> list[str]:
    """Names of the sources of captions, which the connector alone trains on; all where none is
    one.
    """
    found = [name for name, config in configs.items() if config.format in CAPTIONS]
    return found or list(configs)
