"""Overrides: values of a recipe that are given beside it, as `--set stages.fine.optim.lr=1e-4` on
the command line and as a mapping from Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sailvit.core.errors import RecipeError
from sailvit.core.recipe import Length, OptimConfig, Stage
from sailvit.recipes.dialect import read_yaml
from sailvit.recipes.problems import nearest

Overrides = Mapping[str, Any] | Sequence[str]
"""Values by path, or texts `path=value`."""


class Override(NamedTuple):
    """One value of a recipe, and where it lies."""

    told: str
    """How it was given, for messages."""
    keys: list[str]
    """Its path: keys, indices of lists, or the `name` of a list's item."""
    value: Any
    """What is set there."""


def read_overrides(overrides: Overrides) -> list[Override]:
    """The overrides in their order; RecipeError for a text that is not `path=value`.

    Keys are not checked here: the recipe's validation refuses a wrong one, with the nearest
    right name.
    """
    if isinstance(overrides, Mapping):
        return [
            Override(f"override {path}", path.strip().split("."), value)
            for path, value in overrides.items()
        ]
    return list(map(_read, overrides))


def _read(setting: str) -> Override:
    path, equals, text = setting.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"--set {setting}: expected path=value, as in stages.0.optim.lr=1e-4")
    told = f"--set {setting}"
    return Override(told, keys, read_yaml(text, told))


def overridden(document: Any, overrides: Sequence[Override]) -> Any:
    """A copy of `document` in which the overrides hold; RecipeError for a path that leads
    nowhere.
    """
    for told, keys, value in overrides:
        try:
            document = _with(document, keys, value)
        except LookupError as error:
            raise RecipeError(f"{told}: {error.args[0]}") from error
    return document


def _with(here: Any, keys: Sequence[str], value: Any, above: tuple[str, ...] = ()) -> Any:
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    here = _written_out(here, above, key, value)
    below = (*above, key)
    if here is None or isinstance(here, dict):
        here = here or {}
        return {**here, key: _with(here.get(key), rest, value, below)}
    if isinstance(here, list | tuple):
        index = _index(here, key)
        return [
            _with(item, rest, value, below) if i == index else item for i, item in enumerate(here)
        ]
    raise LookupError(
        f"{key!r} would lie inside {here!r}, which is one value; set that as a whole, as"
        f" {{{key}: ...}}"
    )


def _written_out(here: Any, above: tuple[str, ...], key: str, value: Any) -> Any:
    """What lies at the path `above`, as the mapping or list that it stands for in a recipe."""
    if above[:1] != ("stages",):
        return here
    match above[2:]:
        case ("train" | "data" as field, _) if isinstance(here, int | float):
            return {"lr" if field == "train" else "share": here}
        case ("length",) if key in Length.model_fields and value is not None:
            # A stage is as long as one unit says, so that another one takes its place.
            return {}
        case place if here is None and place in _DEFAULTS:
            return _DEFAULTS[place]
    return here


_DEFAULTS: dict[tuple[str, ...], Any] = {
    ("objectives",): Stage.model_fields["objectives"].default,
    ("save",): Stage.model_fields["save"].default,
    ("optim", "betas"): OptimConfig.model_fields["betas"].default,
}
"""Settings of a stage that hold several values by default: an override of one leaves the
others."""


def _index(items: Sequence[Any], key: str) -> int:
    names = [str(item.get("name", "")) if isinstance(item, dict) else "" for item in items]
    if key in names:
        return names.index(key)
    if key.isdigit() and int(key) < len(items):
        return int(key)
    known = [*(name for name in names if name), *map(str, range(len(items)))]
    raise LookupError(f"no item {key!r} in the list; {nearest(key, known)}")
