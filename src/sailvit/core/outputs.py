"""Files and folders that commands write where the user says, without ever overwriting what
sailvit did not make.

An existing file is replaced when it carries sailvit's mark, or when the user asks for it. HTML
pages carry a `generator`; JSON and JSON lines are known by the keys that the command writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sailvit.core.atomic import whole_file
from sailvit.core.errors import RunError
from sailvit.core.ownership import others

GENERATOR = '<meta name="generator" content="sailvit">'
"""Stands in the head of every page of ours."""
_HEAD = 1 << 16
"""Bytes of a file that are looked at for a mark."""


def refuse_foreign_file(
    path: Path, mark: Mapping[str, Any] | None = None, *, overwrite: bool = False
) -> None:
    """RunError for a path that must not be written: a folder, one below a file, or a file sailvit
    did not make.

    `mark` holds the keys of the command's JSON files, each with its value or None for any
    value; without `mark` an HTML page is expected. Call it before the work, so that no work is
    lost. Devices and pipes may always be written.
    """
    if path.is_dir():
        raise RunError(f"{path} is a folder; give the name of a file")
    if path.parent.exists() and not path.parent.is_dir():
        raise RunError(f"{path.parent} is a file; give a folder")
    if overwrite or not path.is_file() or path.stat().st_size == 0:
        return
    if not (_is_page(path) if mark is None else _is_ours(path, mark)):
        raise RunError(
            f"{path} is there and was not written by this command; give another name, or replace it"
            " with --overwrite"
        )


def refuse_foreign_folder(path: Path, mark: str) -> None:
    """RunError for a folder that holds files and was not written by the command, whose folders
    are known by their file `mark`.
    """
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file; give a folder")
    if path.is_dir() and not (path / mark).is_file() and (found := others(path)):
        raise RunError(
            f"{path} holds {', '.join(found[:5])}, which this command did not write, so nothing is"
            " written there; give an empty or a new folder"
        )


def write_output(path: Path, text: str) -> None:
    """Write `text`, all or nothing, and make the folder if need be; RunError when it cannot be
    written.
    """
    try:
        # A pipe or device such as /dev/stdout: nothing can be renamed onto it.
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        # A symbolic link stays one: the file that it leads to is replaced.
        real = path.resolve()
        with whole_file(real) as draft:
            draft.write_text(text, encoding="utf-8")
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
    """Whether the file has the keys of `mark`, and the values given there: in the first of its
    JSON lines, or at the top of indented JSON.
    """
    head = _head(path)
    try:
        first = json.loads(head.partition("\n")[0])
    except ValueError:
        # Indented JSON may go on beyond the head, so it is not parsed: keys are searched for in
        # the form in which `write_json` writes them.
        return head.startswith("{") and all(f'\n "{key}":' in head for key in mark)
    known = isinstance(first, dict) and mark.keys() <= first.keys()
    return known and all(first[key] == value for key, value in mark.items() if value is not None)


def _head(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD).decode("utf-8", errors="replace")
    except OSError:
        return ""
