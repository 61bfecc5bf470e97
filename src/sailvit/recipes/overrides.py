"""`--set stages.fine.optim.lr=1e-4`: one value of a recipe, given on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sailvit.core.errors import RecipeError
from sailvit.recipes.dialect import read_yaml
from sailvit.recipes.problems import nearest


def override(document: Any, setting: str) -> Any:
    """A copy of `document` in which `path=value` is set.

    The path's items are keys, indices of lists, or the `name` of a list's item. Keys are not
    checked here: the recipe's validation refuses a wrong one, with the nearest right name.
    """
    path, equals, text = setting.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"--set {setting}: expected path=value, as in stages.0.optim.lr=1e-4")
    value = read_yaml(text, f"--set {setting}")
    try:
        return _with(document, keys, value)
    except LookupError as error:
        raise RecipeError(f"--set {setting}: {error.args[0]}") from error


def override_value(document: Any, path: str, value: Any) -> Any:
    """A copy of `document` with `value` at `path`, which is written as in `override`."""
    keys = path.strip().split(".")
    try:
        return _with(document, keys, value)
    except LookupError as error:
        raise RecipeError(f"override {path}: {error.args[0]}") from error


def _with(here: Any, keys: Sequence[str], value: Any) -> Any:
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if here is None or isinstance(here, dict):
        here = here or {}
        return {**here, key: _with(here.get(key), rest, value)}
    if isinstance(here, list):
        index = _index(here, key)
        return [_with(item, rest, value) if i == index else item for i, item in enumerate(here)]
    raise LookupError(
        f"{key!r} would lie inside {here!r}, which is one value; set that as a whole, as"
        f" {{{key}: ...}}"
    )


def _index(items: Sequence[Any], key: str) -> int:
    names = [str(item.get("name", "")) if isinstance(item, dict) else "" for item in items]
    if key in names:
        return names.index(key)
    if key.isdigit() and int(key) < len(items):
        return int(key)
    known = [*(name for name in names if name), *map(str, range(len(items)))]
    raise LookupError(f"no item {key!r} in the list; {nearest(key, known)}")
