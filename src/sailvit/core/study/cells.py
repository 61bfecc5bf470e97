"""The cells of a study: which levels are combined, and with which seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from sailvit.core.study.definition import Study


@dataclass(frozen=True)
class Cell:
    """One combination of levels with one seed."""

    levels: tuple[tuple[str, str], ...]
    """Every factor with its level, in the study's order."""
    seed: int
    """The seed."""
    name: str
    """The cell's name: the contrast's level, other levels that are no defaults, the seed."""


def cells_of(study: Study) -> list[Cell]:
    """All cells, seed by seed, so that a study that is cut short has every comparison once."""
    variants = list(_grid(study) if study.design == "grid" else _one_factor(study))
    compared = (study.contrast.base, study.contrast.refined)
    found: dict[Cell, None] = {}
    for seed in range(max(study.seeds, study.contrast.seeds or 0)):
        for levels in variants:
            main = _is_default(study, levels) and levels[study.contrast.factor] in compared
            if seed < ((main and study.contrast.seeds) or study.seeds):
                found[Cell(tuple(levels.items()), seed, _name(study, levels, seed))] = None
    return list(found)


def _one_factor(study: Study) -> Iterator[dict[str, str]]:
    contrast, default = study.contrast, study.defaults()
    main = [contrast.base, contrast.refined]
    yield from ({**default, contrast.factor: level} for level in main)
    yield from ({**default, contrast.factor: level} for level in study.levels(contrast.factor))
    for factor in study.others():
        for level in study.levels(factor)[1:]:
            for arm in [*main, *contrast.across]:
                yield {**default, factor: level, contrast.factor: arm}


def _grid(study: Study) -> Iterator[dict[str, str]]:
    every = (study.levels(factor) for factor in study.factors)
    yield from (dict(zip(study.factors, chosen, strict=True)) for chosen in product(*every))


def _is_default(study: Study, levels: Mapping[str, str]) -> bool:
    """Whether all factors but the contrast's are at their first levels."""
    default = study.defaults()
    return all(levels[factor] == default[factor] for factor in study.others())


def _name(study: Study, levels: Mapping[str, str], seed: int) -> str:
    default = study.defaults()
    others = [
        f"{factor}={levels[factor]}"
        for factor in study.others()
        if levels[factor] != default[factor]
    ]
    return ",".join([levels[study.contrast.factor], *others, f"seed={seed}"])


def shard_of(cells: list[Cell], index: int, count: int) -> list[Cell]:
    """Every `count`-th cell, beginning with number `index` of 0, 1, ..., `count` - 1."""
    return cells[index::count]
