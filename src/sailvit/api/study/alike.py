"""Levels of a study that change nothing, so that comparing them says nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TypeAlias

from sailvit.api.study.lineage import PlannedCell
from sailvit.core.study.definition import Study

Levels: TypeAlias = Mapping[str, str]
"""Levels by factor."""
Key: TypeAlias = tuple[tuple[str, str], ...]
"""Every factor with its level."""


def alike_levels(study: Study, planned: Sequence[PlannedCell]) -> list[str]:
    """A sentence for every two levels of a factor that make the same trainings.

    Two levels of the contrast are named at whatever levels of other factors they are the same. Two
    of another factor only where they are the same for all of the contrast's: a base that is not
    refined is meant to be the same however others are.
    """
    seed = min((each.cell.seed for each in planned), default=0)
    cells = {each.cell.levels: each for each in planned if each.cell.seed == seed}
    found = (
        _sentence(study, cells, factor, pair)
        for factor in study.factors
        for pair in combinations(study.levels(factor), 2)
    )
    return [sentence for sentence in found if sentence]


def _sentence(
    study: Study, cells: Mapping[Key, PlannedCell], factor: str, pair: tuple[str, str]
) -> str:
    """What must be said of two levels of a factor; empty: nothing."""
    places = [
        (dict(levels), _are_alike(each, cells[there]))
        for levels, each in cells.items()
        if (factor, pair[0]) in levels and (there := _with_level(levels, factor, pair[1])) in cells
    ]
    same = [levels for levels, alike in places if alike]
    is_contrast = factor == study.contrast.factor
    if not same or (len(same) < len(places) and not is_contrast):
        return ""
    where = _where(study, factor, same[0]) if is_contrast else ""
    return (
        f"levels {pair[0]} and {pair[1]} of {factor} make the same trainings{where}: comparing them"
        " says nothing. Check what they `set`, and whether another factor sets it too"
    )


def _with_level(levels: Key, factor: str, level: str) -> Key:
    return tuple((name, level if name == factor else own) for name, own in levels)


def _are_alike(one: PlannedCell, other: PlannedCell) -> bool:
    """Whether every model that both measure comes from the same trainings."""
    both = one.models.keys() & other.models.keys()
    return bool(both) and all(
        one.models[name] == other.models[name] and one.last.get(name) == other.last.get(name)
        for name in both
    )


def _where(study: Study, factor: str, levels: Levels) -> str:
    """The levels of other factors, where these are not their first."""
    default = study.defaults()
    told: Iterator[str] = (
        f"{name}={level}"
        for name, level in levels.items()
        if name != factor and level != default[name]
    )
    named = ", ".join(told)
    return f" at {named}" if named else ""
