"""Levels that make the same trainings are named before anything trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sailvit.api.study.alike import alike_levels
from sailvit.api.study.lineage import Lineage
from sailvit.core.study.cells import cells_of
from tiny_studies import definition, study

RATE = "stages.align.optim.lr"


def said(folder: Path, **changes: Any) -> list[str]:
    given = study(**changes)
    lineage = Lineage(given, folder)
    return alike_levels(given, [lineage.add(cell) for cell in cells_of(given)])


def factors(**more: Any) -> dict[str, Any]:
    return {**definition()["factors"], **more}


def test_a_study_whose_levels_differ_says_nothing(tmp_path: Path):
    assert said(tmp_path) == []
    # The base is not refined, however the others are.
    longer = {"plain": {}, "longer": {"refine": {"scale": 2}}}
    assert said(tmp_path, factors=factors(length=longer)) == []


def test_a_level_that_changes_nothing_is_named(tmp_path: Path):
    same = {"full": {}, "again": {"target": {"scale": 1}}, "half": {"target": {"scale": 0.5}}}
    (only,) = said(tmp_path, factors=factors(data=same))
    assert only.startswith("levels full and again of data make the same trainings: comparing")
    arms = {"gradual": {}, "base": {"refine": None}, "same": {"refine": {"scale": 1.0}}}
    (only,) = said(tmp_path, factors={"arm": arms})
    assert "levels gradual and same of arm" in only


def test_a_setting_that_another_factor_sets_too_is_named(tmp_path: Path):
    arms = {"gradual": {}, "base": {"target": {"set": {RATE: 1e-5}}}}
    rates = {"usual": {}, "low": {"target": {"set": {RATE: 1e-4}}}}
    (only,) = said(tmp_path, factors={"arm": arms, "rate": rates}, design="grid", seeds=1)
    assert "levels gradual and base of arm make the same trainings at rate=low" in only
