"""The paths in a study: of recipes, and of what measures read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sailvit.core.study.definition import Study

_HERE = "./"
"""Begins every path in a study's folder, so that none is taken for a shipped recipe's name."""


def with_paths(
    study: Study, recipe: Callable[[str], str], data: Callable[[str], str] | None = None
) -> Study:
    """`study` with `recipe` applied to where its recipes are, and `data`, or the same, to where
    measures read.
    """
    document = study.model_dump()
    for each in _recipes(document):
        each["recipe"] = recipe(each["recipe"])
    for measure in document["measures"].values():
        measure["data"] = [(data or recipe)(each) for each in measure["data"]]
        source = measure["source"] or {}
        for key in ("path", "images"):
            if source.get(key) is not None:
                source[key] = (data or recipe)(source[key])
    return Study.model_validate(document)


def relative(study: Study, folder: Path) -> Study:
    """`study` with absolute paths told from `folder`, which then may move with what it names."""

    def told(text: str) -> str:
        """The path from the folder on; names and URLs as they are."""
        start = folder.absolute()
        return _HERE + os.path.relpath(text, start) if Path(text).is_absolute() else text

    return with_paths(study, told)


def absolute(study: Study, folder: Path) -> Study:
    """What `relative` was given, of a folder that may have moved."""

    def told(text: str) -> str:
        """The absolute path of one that begins at the folder."""
        # Not resolve(), which would follow links to where files are named otherwise.
        path = os.path.abspath(folder / text)  # noqa: PTH100
        return path if text.startswith(_HERE) else text

    return with_paths(study, told)


def _recipes(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every step, and every change of one, that names a recipe."""
    levels = (level for factor in document["factors"].values() for level in factor.values())
    changes = (change for level in levels for change in level.values())
    for each in (*document["steps"].values(), *changes):
        if each is not None and each["recipe"] is not None:
            yield each
