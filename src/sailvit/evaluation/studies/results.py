"""From a study's cells to the numbers of its report, and to a verdict on every claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from sailvit.core.study.cells import cells_of
from sailvit.core.study.definition import Claim, Study
from sailvit.core.study.folder import DONE, FAILED
from sailvit.evaluation.comparison import LEVEL, holm
from sailvit.evaluation.studies.differences import (
    Asked,
    Difference,
    Spread,
    Values,
    difference,
    p_value,
    spread_of,
)
from sailvit.evaluation.studies.versions import current_files

Verdict = Literal["holds", "not shown", "does not hold"]


def results(study: Study, cells: Sequence[Values]) -> dict[str, Any]:
    """The value of results.json: every difference from the base with its test, a table per
    factor, and every claim with its verdict.

    Tests are corrected after Holm: differences from the base over all of a measure's, claims
    over all of the study's.
    """
    wanted = {cell.name: cell for cell in cells_of(study)}
    # Files of an earlier form of the study may lie in the folder; they must not join its tests.
    files = {cell["cell"]: cell for cell in cells if cell["cell"] in wanted}
    there = current_files(study, files)
    known = list(there.values())
    spreads = {name: spread_of(known, _asked(study, name)) for name in study.measures}
    return {
        "study": study.name,
        "cells": {
            **_counts(known),
            "all": len(wanted),
            "missing": [name for name in wanted if name not in there],
            "of no level": sorted(cell["cell"] for cell in cells if cell["cell"] not in wanted),
            "of another version": sorted(files.keys() - there.keys()),
        },
        "seconds": sum(_seconds(known).values()),
        "spread": {name: _spread(study, name, spread) for name, spread in spreads.items()},
        "differences": [
            each
            for name in study.measures
            for each in _differences(study, name, known, spreads[name])
        ],
        "claims": _claims(study, known, spreads),
    }


def _spread(study: Study, measure: str, spread: Spread | None) -> dict[str, Any] | None:
    """A measure's spread, with what it is counted in."""
    unit = study.measures[measure].unit.name
    return None if spread is None else {**asdict(spread), "unit": unit}


def _counts(cells: Sequence[Values]) -> dict[str, Any]:
    """How many cells are measured, and why others are not."""
    failed = {cell["cell"]: cell["reason"] for cell in cells if cell["status"] == FAILED}
    return {"done": sum(cell["status"] == DONE for cell in cells), "failed": failed}


def _seconds(cells: Sequence[Values]) -> dict[str, float]:
    """Seconds of every training, each once."""
    return {each["name"]: each.get("seconds", 0.0) for cell in cells for each in cell["trainings"]}


def _asked(study: Study, measure: str) -> list[Asked]:
    """Every level of the contrast's factor against the base, wherever both are run."""
    contrast, found = study.contrast, dict[Asked, None]()
    for cell in cells_of(study):
        levels = dict(cell.levels)
        told = measure in study.measured(levels)
        level = levels.pop(contrast.factor)
        if told and level != contrast.base:
            others = tuple(levels.items())
            unit = study.measures[measure].unit
            found[Asked(measure, unit, contrast.factor, level, contrast.base, others)] = None
    return list(found)


def _differences(
    study: Study, measure: str, cells: Sequence[Values], spread: Spread | None
) -> list[dict[str, Any]]:
    found = [difference(cells, asked, spread) for asked in _asked(study, measure)]
    values = [p_value(each, spread) for each in found]
    corrected = _corrected(values)
    default = study.defaults()
    return [
        {
            **_flat(each),
            "changed": {f: level for f, level in each.asked.others if default[f] != level},
            "p": p,
            "corrected": c,
            "word": _word(each, c),
        }
        for each, p, c in zip(found, values, corrected, strict=True)
    ]


def _flat(found: Difference) -> dict[str, Any]:
    """A difference as one mapping."""
    values, asked = asdict(found), asdict(found.asked)
    del values["asked"]
    means = {f"{side} mean": values.pop(side) for side in ("better", "than")}
    means["difference"] = values.pop("mean")
    told = {"unit": found.asked.unit.name, "others": dict(found.asked.others)}
    return {**asked, **told, **means, **values}


def _corrected(values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction of those that there are."""
    known = holm([p for p in values if p is not None])
    return [None if p is None else known.pop(0) for p in values]


def _word(found: Difference, corrected: float | None) -> str:
    if found.mean is None:
        return "no cells"
    if corrected is None:
        return "one seed"
    if corrected > LEVEL:
        return "does not differ"
    return "improves" if found.asked.unit.gain(found.mean) > 0 else "worse"


def _claims(
    study: Study, cells: Sequence[Values], spreads: Mapping[str, Spread | None]
) -> list[dict[str, Any]]:
    """Every claim with its verdict and its numbers."""
    found: list[tuple[int, Difference]] = []
    for number, claim in enumerate(study.claims):
        measure = claim.measure or next(iter(study.measures))
        for asked in _asked_by(study, claim, measure):
            found.append((number, difference(cells, asked, spreads[measure])))
    values = [
        p_value(each, spreads[each.asked.measure], study.claims[number].by)
        for number, each in found
    ]
    tested = list(zip(found, _corrected(values), strict=True))
    made = []
    for number, claim in enumerate(study.claims):
        own = [(each, p) for (place, each), p in tested if place == number]
        verdict = _verdict(own, claim.by)
        told = [_told(study, each, p) for each, p in own]
        made.append(
            {
                "says": claim.says,
                "verdict": verdict,
                "by": claim.by,
                "sentence": f"{claim.says} {verdict.capitalize()}: {'; '.join(told)}.",
                "numbers": [{**_flat(each), "corrected": p} for each, p in own],
            }
        )
    return made


def _asked_by(study: Study, claim: Claim, measure: str) -> list[Asked]:
    """The differences that a claim is about: at each level of one of its factors while the
    others are at their first, or, in a grid, at every combination.
    """
    contrast, default, unit = study.contrast, study.defaults(), study.measures[measure].unit
    own = (claim.better or contrast.refined, claim.than or contrast.base)
    found = dict[Asked, None]()
    for cell in cells_of(study):
        others = {name: level for name, level in cell.levels if name != contrast.factor}
        changed = {name for name, level in others.items() if default[name] != level}
        if changed <= set(claim.over):
            found[Asked(measure, unit, contrast.factor, *own, tuple(others.items()))] = None
    return list(found)


def _verdict(tested: Sequence[tuple[Difference, float | None]], by: float) -> Verdict:
    """A claim holds where every difference is shown to be larger, and does not where any is
    shown to be smaller.
    """
    shown = [_beyond(each, p, by) for each, p in tested]
    if "less" in shown:
        return "does not hold"
    return "holds" if set(shown) == {"more"} else "not shown"


def _beyond(found: Difference, corrected: float | None, by: float) -> str | None:
    """`more` or `less` where a gain is shown to be that than `by`."""
    if corrected is None or found.mean is None or corrected > LEVEL:
        return None
    return "more" if found.asked.unit.gain(found.mean) > by else "less"


def _told(study: Study, found: Difference, corrected: float | None) -> str:
    """A difference with its numbers, in words."""
    default = study.defaults()
    changed = [f"{name} {level}" for name, level in found.asked.others if default[name] != level]
    place = ", ".join(changed) or "by default"
    if found.mean is None:
        return f"{place} no cells"
    seeds = f"{len(found.seeds)} seed{'s' if len(found.seeds) > 1 else ''}"
    unit = found.asked.unit
    told = f"{place} {found.mean:+.{unit.digits}f} {unit.name}"
    if corrected is None:
        return f"{told} ({seeds})"
    chance = "p < 0.001" if corrected < 0.001 else f"p {corrected:.2g}"
    return (
        f"{told}, 95 % {found.low:+.{unit.digits}f} to {found.high:+.{unit.digits}f}"
        f" ({seeds}, {chance})"
    )
