"""Recipes of target training on open data: they plan without it, and the docs hold what plan says."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from sailvit.preflight.plan import plan
from sailvit.recipes.loader import load_recipe

ROOT = Path(__file__).parents[2]
MADE = runpy.run_path(str(ROOT / "benchmarks/target_table.py"))


@pytest.mark.parametrize("name", MADE["RECIPES"])
def test_nothing_but_the_data_is_missing(name: str):
    made = plan(load_recipe(name))
    assert made.problems
    assert all(problem.startswith("sources.") for problem in made.problems)
    align, multitask, instruct = made.stages
    assert set(align.trains) == {"connector"}
    assert set(multitask.trains) == set(instruct.trains) == {"tower", "connector", "language"}


def test_the_table_of_the_docs_is_what_plan_says():
    page = (ROOT / "docs/target.md").read_text(encoding="utf-8")
    assert page.partition(MADE["BEGIN"])[2].partition(MADE["END"])[0] == MADE["table"]()
