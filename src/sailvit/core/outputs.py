"""Files and folders that commands write where the user says: none that sailvit has not made is
ever overwritten.

A file that is there is replaced when it carries our mark, or when the user asked for it. Pages
carry a `generator`; JSON and JSON lines are known by the keys that the command writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sailvit.core.errors import RunError
from sailvit.core.ownership import others

GENERATOR = '<meta name="generator" content="sailvit">'
"""Stands in the head of every page of ours."""
_HEAD = 1 << 16
"""Bytes of a file that are looked at for a mark."""


def refuse_foreign_file(
    path: Path, mark: Mapping[str, Any] | None = None, *, overwrite: bool = False
) -> None:
    """RunError for a path that must not be written: a folder, or a file that sailvit has not made.

    `mark` is what a JSON file of the command has, keys with values or None for any; without it
    a page is expected. To be called before the work, so that it is not done in vain. Devices
    and pipes are no files, and may be written.
    """
    if path.is_dir():
        raise RunError(f"{path} is a folder; give the name of a file")
    if overwrite or not path.is_file() or path.stat().st_size == 0:
        return
    if not (_is_page(path) if mark is None else _is_ours(path, mark)):
        raise RunError(
            f"{path} is there and was not written by this command; give another name, or replace it"
            " with --overwrite"
        )


def refuse_foreign_folder(path: Path, mark: str) -> None:
    """RunError for a folder that holds something else than what the command wrote, known by its
    file `mark`.
    """
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file; give a folder")
    if path.is_dir() and not (path / mark).is_file() and (found := others(path)):
        raise RunError(
            f"{path} holds {', '.join(found[:5])}, which this command did not write, so nothing is"
            " written there; give an empty or a new folder"
        )


def write_output(path: Path, text: str) -> None:
    """Write `text`, all or nothing, into a folder that is made if need be; RunError when that
    cannot be.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        # A link stays, and what it leads to is replaced.
        real = path.resolve()
        real.parent.mkdir(parents=True, exist_ok=True)
        draft = real.with_name(real.name + ".part")
        draft.write_text(text, encoding="utf-8")
        draft.replace(real)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror}); make room or change the mode of"
            f" {path.parent}, or give another name"
        ) from error


def _is_page(path: Path) -> bool:
    head = _head(path)
    # Pages of earlier versions have no generator, but a title of ours.
    return GENERATOR in head or ("<title>" in head and "SAILViT" in head.split("</title>")[0])


def _is_ours(path: Path, mark: Mapping[str, Any]) -> bool:
    """Whether the file is JSON lines whose first, or indented JSON that, has these keys, and
    values that are given.
    """
    head = _head(path)
    try:
        first = json.loads(head.partition("\n")[0])
    except ValueError:
        return head.startswith("{") and all(f'\n "{key}":' in head for key in mark)
    known = isinstance(first, dict) and mark.keys() <= first.keys()
    return known and all(first[key] == value for key, value in mark.items() if value is not None)


def _head(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD).decode("utf-8", errors="replace")
    except OSError:
        return ""
