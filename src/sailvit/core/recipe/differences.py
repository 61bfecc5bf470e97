"""The settings whose values differ between the recipe that a run was started with and the one
that it is resumed with.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import zip_longest
from typing import Any

from pydantic import ValidationError

from sailvit.core.errors import RunError
from sailvit.core.recipe import Recipe

FREE = (
    "name",
    "resume",
    "workers",
    "proof_steps",
    "checkpoint.*",
    "quarantine.*",
    "recovery.*",
    "monitoring.*",
    # Weights agree to 1e-5 in all modes (tests/training/test_sharding.py).
    "parallel.mode",
    "parallel.group",
    "parallel.packing",
    "parallel.offload",
    "parallel.recompute*",
    "parallel.kept_features",
    "parallel.reduce",
    "model.lora.keep",
    "stages.*.save",
    "stages.*.micro_batch",
)
"""Settings that change no number that is learnt, so that they may differ on resume; a stage's
`micro_batch` only where it does not count. All others may not: a new setting is refused until
it is listed here."""

_SHOWN = 120
"""Most characters of a value in a message."""


@dataclass(frozen=True)
class Absent:
    """In the place of a value: the setting is not there."""

    def __str__(self) -> str:
        """For messages."""
        return "(absent)"


@dataclass(frozen=True)
class Difference:
    """One setting with two values."""

    keys: tuple[str, ...]
    """Where it stands, from the outside in."""
    old: Any
    """What the run was started with."""
    new: Any
    """What is asked for now."""
    is_free: bool
    """Whether it may differ, as it changes no number that is learnt."""

    @property
    def path(self) -> str:
        """Where it stands, with dots: `stages.0.optim.lr`."""
        return ".".join(self.keys)

    def __str__(self) -> str:
        """For messages."""
        return f"{self.path}: {_shown(self.old)} is now {_shown(self.new)}"


def differences(old: Recipe, new: Recipe) -> list[Difference]:
    """Every setting whose value differs; the order of keys, and two names of one file or
    folder, do not count.
    """
    drawn = {name for recipe in (old, new) for stage in recipe.stages for name in stage.data}
    fixed = {
        ("stages", str(index), "micro_batch")
        for recipe in (old, new)
        for index, stage in enumerate(recipe.stages)
        if stage.micro_batch_counts
    }
    values = old.model_dump(mode="json"), new.model_dump(mode="json")
    return [
        Difference(keys, before, after, is_free=keys not in fixed and _is_free(keys, drawn))
        for keys, before, after in _compared(*values, ())
    ]


def going_on(old: Recipe, new: Recipe, place: str) -> tuple[Recipe, list[Difference]]:
    """The recipe that the run in `place` is resumed with, and its differences from the one that
    it was started with.

    It is the old recipe with the free settings taken from the new one, so that not even the
    order of keys changes.

    Raises:
        RunError: settings differ that change what is learnt; the message lists them all.
    """
    if new.precision == "auto":
        # What the first machine took stays, also where this one would take another.
        new = new.model_copy(update={"precision": old.precision})
    found = differences(old, new)
    if refused := [difference for difference in found if not difference.is_free]:
        lines = "".join(f"\n  {difference}" for difference in refused)
        raise RunError(
            f"the recipe differs from the one {place} was started with:{lines}\nThese settings change"
            " what is learnt, so a resumed run keeps them: set them back, or start a new run with"
            " --run"
        )
    values = old.model_dump(mode="json")
    for difference in found:
        _put(values, difference.keys, difference.new)
    return Recipe.model_validate(values), found


def recorded(values: Mapping[str, Any], place: str) -> Recipe:
    """The recipe that a manifest holds. Settings that have been added since take their defaults.

    Raises:
        RunError: this version does not know some of its settings.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, found["loc"])) for found in error.errors())
        raise RunError(
            f"{place} was started by another version, with settings that this one reads otherwise:"
            f" {wrong}; resume it with the version that its manifest names"
        ) from error


def _is_free(keys: tuple[str, ...], drawn: set[str]) -> bool:
    if keys[0] == "sources" and len(keys) > 1:
        return keys[1] not in drawn
    return any(fnmatch(".".join(keys), pattern) for pattern in FREE)


def _compared(
    old: Any, new: Any, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _compared(old.get(key, Absent()), new.get(key, Absent()), (*path, str(key)))
    elif _are_settings(old) and _are_settings(new):
        for index, pair in enumerate(zip_longest(old, new, fillvalue=Absent())):
            yield from _compared(*pair, (*path, str(index)))
    elif not _same(old, new):
        yield path, old, new


def _are_settings(value: Any) -> bool:
    # Lists of numbers or names are one value; lists of stages are compared stage by stage.
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _same(old: Any, new: Any) -> bool:
    # 1 == True in Python, but as settings they are two values.
    if isinstance(old, bool) or isinstance(new, bool):
        return old is new
    # Only absolute paths: a relative string may just as well be a hub id or a name.
    if isinstance(old, str) and isinstance(new, str) and old != new:
        absolute = all(os.path.isabs(os.path.expanduser(value)) for value in (old, new))  # noqa: PTH111, PTH117
        return absolute and _real(old) == _real(new)
    return bool(old == new)


def _real(path: str) -> str:
    return os.path.realpath(os.path.expanduser(path))  # noqa: PTH111


def _put(values: Any, keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        values = values[int(key)] if isinstance(values, list) else values[key]
    if isinstance(value, Absent):
        del values[keys[-1]]
    else:
        values[keys[-1]] = value


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, Absent) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
