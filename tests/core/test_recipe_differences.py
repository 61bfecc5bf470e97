"""Recipes compared by value: what may differ when a run goes on, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from sailvit.core.errors import RunError
from sailvit.core.recipe import Recipe
from sailvit.core.recipe.differences import differences, going_on, recorded


def values(**changes: Any) -> dict[str, Any]:
    stage = {
        "name": "a",
        "train": {"connector": 1.0, "tower": 0.5},
        "data": {"x": 1, "y": {"share": 2}},
        "optim": {"lr": 1e-3},
        "length": {"samples": 8},
        "global_batch": 2,
    }
    given = {
        "name": "run",
        "model": {"tower": "t", "language": "l"},
        "sequence": 64,
        "precision": "bf16",
        "sources": {n: {"format": "llava", "path": f"/data/{n}"} for n in ("x", "y", "seen")},
        "stages": [copy.deepcopy(stage), {**copy.deepcopy(stage), "name": "b"}],
    }
    for path, value in changes.items():
        here: Any = given
        *keys, last = path.split("__")
        for key in keys:
            here = here[int(key)] if isinstance(here, list) else here.setdefault(key, {})
        here[last] = value
    return given


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate(values(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"workers": 7},
        {"name": "other"},
        {"resume": "auto"},
        {"proof_steps": 3},
        {"checkpoint": {"every": 5, "keep": 9, "best": True}},
        {"quarantine": {"share": 0.5, "allow": 1000, "timeout": None}},
        {"recovery": {"streak": 9, "rollbacks": 0, "spike": 3.0}},
        {"monitoring": {"every": None, "loggers": [], "source": "seen", "share": None}},
        {"parallel": {"mode": "shard", "offload": True, "recompute": {"tower": "full"}}},
        {"parallel": {"packing": "rows"}},
        {"stages__1__save": ["tower"]},
        {"stages__1__micro_batch": 2},
        {"sources__seen__path": "/elsewhere"},
        {"sources__fresh": {"format": "llava", "path": "/new"}, "monitoring__source": "fresh"},
    ],
    ids=lambda value: next(iter(value)),
)
def test_what_changes_nothing_learnt_may_differ(changes: dict[str, Any]):
    old, new = recipe(), recipe(**changes)
    effective, found = going_on(old, new, "runs/x")
    assert found
    assert all(difference.is_free for difference in found)
    assert effective == new
    assert going_on(effective, new, "runs/x") == (effective, [])
    assert going_on(new, old, "runs/x")[0] == old


@pytest.mark.parametrize(
    "changes",
    [
        {"negatives": "micro_batch", "objectives": {"next_token": 1.0, "contrastive": 0.5}},
        {"objectives": {"next_token": 1.0, "load_balancing": 0.01}},
    ],
    ids=["negatives", "load_balancing"],
)
def test_a_micro_batch_that_counts_may_not_differ(changes: dict[str, Any]):
    counts = {f"stages__1__{name}": value for name, value in changes.items()}
    old, new = (
        recipe(**counts),
        recipe(**counts, stages__0__micro_batch=2, stages__1__micro_batch=2),
    )
    assert [each.path for each in differences(old, new) if each.is_free] == ["stages.0.micro_batch"]
    with pytest.raises(RunError, match=r"stages.1.micro_batch: 1 is now 2"):
        going_on(old, new, "runs/x")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"stages__0__optim__lr": 0.5}, "stages.0.optim.lr: 0.001 is now 0.5"),
        ({"seed": 1}, "seed: 0 is now 1"),
        ({"stages__1__name": "c"}, "stages.1.name: 'b' is now 'c'"),
        ({"stages__1__global_batch": 4}, "stages.1.global_batch: 2 is now 4"),
        ({"sources__x__path": "/other/x"}, "sources.x.path: '/data/x' is now '/other/x'"),
        ({"sources__x__options": {"k": 1}}, "sources.x.options.k: (absent) is now 1"),
        ({"stages__0__data": ["x", "y"]}, "stages.0.data: {'x': {"),
        ({"parallel": {"compile": True}}, "parallel.compile: False is now True"),
        ({"stages__0__train": {"connector": 1.0}}, "stages.0.train.tower: {'lr': 0.5"),
        ({"precision": "fp32"}, "precision: 'bf16' is now 'fp32'"),
        ({"stages": values()["stages"][:1]}, "stages.1: {'name': 'b'"),
    ],
)
def test_what_changes_learning_is_refused_with_both_values(changes: dict[str, Any], line: str):
    with pytest.raises(RunError) as error:
        going_on(recipe(), recipe(**changes, workers=5), "runs/x")
    assert f"\n  {line}" in str(error.value)
    assert "workers" not in str(error.value)


def test_every_refused_setting_is_listed():
    new = recipe(seed=4, sequence=32, stages__1__optim__lr=1.0)
    with pytest.raises(RunError) as error:
        going_on(recipe(), new, "runs/x")
    listed = [text.split(":")[0].strip() for text in str(error.value).splitlines()[1:-1]]
    assert listed == ["seed", "sequence", "stages.1.optim.lr"]


def test_order_spelling_and_defaults_are_no_difference(tmp_path: Path):
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(inner) for key, inner in reversed(value.items())}
        return [turned(inner) for inner in value] if isinstance(value, list) else value

    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    old = recipe(sources__x__path=str(tmp_path / "real"))
    new = turned(values(sources__x__path=str(tmp_path / "link/"), stages__0__data__x=1.0))
    new["stages"][0]["optim"] = {"lr": "1e-3", "weight_decay": 0.05}
    effective, found = going_on(old, Recipe.model_validate(new), "runs/x")
    assert found == []
    # The run goes on with its own order, should anything depend on it.
    assert json.dumps(effective.model_dump(mode="json")) == json.dumps(old.model_dump(mode="json"))
    assert differences(old, recipe(sources__x__path=str(tmp_path / "other")))


def test_a_recorded_recipe_takes_new_defaults_and_names_what_is_no_more():
    kept = recipe(workers=3).model_dump(mode="json")
    del kept["recovery"], kept["stages"][0]["save"]
    assert recorded(json.loads(json.dumps(kept)), "runs/x") == recipe(workers=3)
    kept["stages"][0]["magic"] = 1
    with pytest.raises(RunError, match=r"another version, .*: stages\.0\.magic; resume it with"):
        recorded(kept, "runs/x")
