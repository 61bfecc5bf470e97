"""Settings of curation, and how a file of them is read."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import SerializeAsAny, ValidationError, field_validator

from sailvit.core.config import Config
from sailvit.core.errors import DataError
from sailvit.dataprep.curate.filters.base import Filter
from sailvit.dataprep.curate.filters.image_filters import (
    Aspect,
    Duplicate,
    NearDuplicate,
    Resolution,
    Similarity,
)
from sailvit.dataprep.curate.filters.text_filters import (
    Language,
    LengthFilter,
    ReadText,
    Repetition,
    ScoresFilter,
)
from sailvit.dataprep.curate.resampling import Resampling

FILTERS: dict[str, type[Filter]] = {
    "resolution": Resolution,
    "aspect": Aspect,
    "length": LengthFilter,
    "repetition": Repetition,
    "language": Language,
    "ocr": ReadText,
    "scores": ScoresFilter,
    "similarity": Similarity,
    "duplicate": Duplicate,
    "near_duplicate": NearDuplicate,
}
"""Filters by the name that a file of settings gives. To add one, write its class and name it
here."""


class Curation(Config):
    """Filters and resampling.

    Filters that need only the record run first, in the order given; then those that need a
    model, those that drop copies, and resampling last. So a record that another filter drops
    never counts as the first of its copies.
    """

    filters: list[SerializeAsAny[Filter]] = []
    """Filters, each as a mapping of its name to its settings."""
    resampling: Resampling | None = None
    """Thinning of over-represented n-grams; None: no resampling."""
    seed: int = 0
    """Seed of the resampling."""

    @field_validator("filters", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return [_build(entry) for entry in value] if isinstance(value, list) else value


def read_curation(document: Any, folder: Path) -> Curation:
    """The settings in a parsed file; relative paths in it start at `folder`."""
    if not isinstance(document, Mapping):
        raise DataError(
            f"found {type(document).__name__}; expected a mapping with `filters`, `resampling`,"
            " `seed`"
        )
    entries = document.get("filters")
    if isinstance(entries, list):
        document = {**document, "filters": [_anchored(entry, folder) for entry in entries]}
    try:
        return Curation.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        known = (
            f"; known are {', '.join(Curation.model_fields)}"
            if first["type"] == "extra_forbidden"
            else ""
        )
        raise DataError(f"{where}: {first['msg'].removeprefix('Value error, ')}{known}") from error


def filter_name(found: Filter) -> str:
    """A filter's name in a file of settings."""
    return next(name for name, kind in FILTERS.items() if type(found) is kind)


def _build(entry: Any) -> Filter:
    """The filter of `{name: settings}`; ValueError that says what is wrong with it."""
    if isinstance(entry, Filter):
        return entry
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ValueError(
            f"found {str(entry)[:60]!r}; expected one filter with its settings, such as"
            " `length: {at_least: 5}`"
        )
    ((name, settings),) = entry.items()
    if name not in FILTERS:
        near = get_close_matches(str(name), FILTERS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown filter {name!r}; did you mean {near}? known are {', '.join(FILTERS)}"
        )
    try:
        # `- duplicate:` without settings is None in YAML.
        return FILTERS[name].model_validate(settings or {})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"{name}.{key}: {first['msg']}; known are {', '.join(FILTERS[name].model_fields)}"
        ) from error


def _anchored(entry: Any, folder: Path) -> Any:
    """An entry whose relative paths start at `folder`; hub ids stay as they are."""
    if not isinstance(entry, Mapping):
        return entry
    moved = {}
    for name, settings in entry.items():
        files = FILTERS[name].FILES if name in FILTERS and isinstance(settings, Mapping) else ()
        # A hub id looks like a relative path: what exists on disk is one.
        found = {
            key: str(folder / settings[key])
            for key in files
            if (folder / str(settings.get(key))).exists()
        }
        moved[name] = {**settings, **found} if found else settings
    return moved
