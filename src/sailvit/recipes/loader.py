"""From a YAML file to a `Recipe`, and back to a resolved YAML that loads to the same value."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sailvit.core.errors import RecipeError
from sailvit.core.recipe import Recipe
from sailvit.recipes.dialect import read_yaml, write_yaml
from sailvit.recipes.overrides import Override, Overrides, overridden, read_overrides
from sailvit.recipes.problems import explain, nearest

SHIPPED = Path(__file__).parent

FILES = ("sources.*.path", "sources.*.images", "model.connector.source")
"""Settings that always hold the path of a file or folder."""
FILES_OR_NAMES = ("model.tower", "model.language", "stages.*.start_from.*")
"""Settings that hold a folder, or a name (hub id, `previous`) when no such folder exists."""


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by bare name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def load_recipe(path_or_name: str | Path, overrides: Overrides = ()) -> Recipe:
    """The recipe in a file, or the shipped recipe of that name, with overrides applied.

    Relative paths in a file start at the file's folder; those of a shipped recipe and of an
    override start at the current folder. All come out absolute.
    """
    path = _find(path_or_name)
    document = read_yaml(_text(path), str(path))
    if not isinstance(document, dict):
        raise RecipeError(
            f"{path}: expected a mapping with name, model, sources and stages; found {document!r}"[
                :300
            ]
        )
    if path.resolve().parent != SHIPPED.resolve():
        document = _anchored(document, path.parent)
    changes = read_overrides(overrides)
    changed = overridden(document, changes)
    try:
        # The file's paths are absolute by now, so this concerns those of overrides alone.
        return _checked(changed, Path())
    except ValidationError as error:
        blamed = _blamed(document, changes)
        head = f"{path} does not take {blamed}:" if blamed else f"{path} is not a valid recipe:"
        raise RecipeError("\n".join([head, *_told(error)])) from error


def _blamed(document: Any, overrides: Sequence[Override]) -> str:
    """The overrides that make a valid document invalid, as given; empty if it was not valid."""
    if not overrides or not _is_valid(document):
        return ""
    alone = [each for each in overrides if not _is_valid(overridden(document, [each]))]
    # If each is valid alone, some of them are invalid together.
    return ", ".join(each.told for each in alone or overrides)


def _is_valid(document: Any) -> bool:
    try:
        _checked(document, Path())
    except ValidationError:
        return False
    return True


def _checked(document: Any, folder: Path) -> Recipe:
    return Recipe.model_validate(_anchored(document, folder))


def _told(error: ValidationError) -> list[str]:
    return [f"  {line}" for line in explain(error, Recipe)]


def checked_recipe(document: Any, origin: str, folder: Path) -> Recipe:
    """The recipe of a mapping; its relative paths start at `folder`.

    Raises:
        RecipeError: the recipe is not valid; the message begins with `origin` and has a line
            per wrong setting.
    """
    try:
        return _checked(document, folder)
    except ValidationError as error:
        head = f"{origin} is not a valid recipe:"
        raise RecipeError("\n".join([head, *_told(error)])) from error


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out; loading it gives an equal recipe."""
    return write_yaml(recipe.model_dump())


def _find(path_or_name: str | Path) -> Path:
    path = Path(path_or_name).expanduser()
    if path.is_file():
        return path
    shipped = shipped_recipes()
    name = path.name.removesuffix(".yaml").removesuffix(".yml")
    if name in shipped:
        return shipped[name]
    kind = "is a folder" if path.is_dir() else "does not exist"
    raise RecipeError(
        f"{path} {kind}, and no shipped recipe has that name; {nearest(name, shipped)}"
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start})"
        ) from error


def _anchored(document: Any, folder: Path) -> Any:
    """`document` with relative paths made absolute, starting at `folder`."""
    for place in FILES:
        document = _replaced(document, place.split("."), lambda value: _absolute(value, folder))
    for place in FILES_OR_NAMES:
        document = _replaced(
            document, place.split("."), lambda value: _absolute_if_there(value, folder)
        )
    return document


def _replaced(value: Any, keys: Sequence[str], change: Callable[[str], str]) -> Any:
    """`value` with `change` applied to the strings at `keys` (`*` is every key or index).

    What has another type than the keys need stays: validation names it later.
    """
    if not keys:
        return change(value) if isinstance(value, str) else value
    first, rest = keys[0], keys[1:]
    if isinstance(value, dict):
        return {k: _replaced(v, rest, change) if first in ("*", k) else v for k, v in value.items()}
    if isinstance(value, list) and first == "*":
        return [_replaced(item, rest, change) for item in value]
    return value


def _absolute(value: str, folder: Path) -> str:
    if value.startswith("sailvit:") or "://" in value:
        return value
    return os.path.abspath(folder / Path(value).expanduser())  # noqa: PTH100 (keeps links)


def _absolute_if_there(value: str, folder: Path) -> str:
    path = _absolute(value, folder)
    return path if Path(path).is_dir() else value
