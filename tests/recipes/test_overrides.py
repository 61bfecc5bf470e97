"""Overrides give one recipe, whichever way they and the recipe are given."""

import json
from pathlib import Path

import pytest

from sailvit.core.errors import RecipeError
from sailvit.core.recipe import Recipe
from sailvit.recipes.dialect import write_yaml
from sailvit.recipes.loader import load_recipe
from sailvit.recipes.python import made_recipe

STAGE = {
    "name": "fine",
    "train": {"connector": 1.0},
    "data": {"photos": 0.5},
    "optim": {"lr": 1e-3},
    "length": {"epochs": 1},
    "global_batch": 4,
}


def document(**settings: object) -> dict[str, object]:
    return {
        "name": "small",
        "model": {"tower": "org/tower", "language": "org/language"},
        "sequence": 64,
        "sources": {"photos": {"format": "world"}},
        "stages": [{**STAGE, **settings}],
    }


def every_way(folder: Path, path: str, value: object, **settings: object) -> list[Recipe]:
    """The recipe overridden as text and as mapping: its file, its value, its document."""
    given = document(**settings)
    file = folder / "small.yaml"
    file.write_text(write_yaml(given))
    text = f"{path}={json.dumps(value)}"
    return [
        made_recipe(recipe, overrides)
        for recipe in (file, load_recipe(file), given)
        for overrides in ([text], {path: value})
    ]


@pytest.mark.parametrize(
    ("path", "value", "settings"),
    [
        ("model.connector.kind", "mlp", {}),
        ("stages.fine.schedule.name", "cosine", {"schedule": {"name": "wsd"}}),
        ("stages.fine.schedule.name", "wsd", {"schedule": {"name": "adalrs"}}),
        ("stages.fine.schedule.search.base", "cosine", {"schedule": {"name": "adalrs"}}),
        ("stages.fine.length.samples", 1000, {}),
        ("stages.fine.train.connector.lr", 0.5, {}),
        ("stages.fine.data.photos.epochs", 2, {}),
        ("stages.fine.objectives.contrastive", 0.1, {}),
        ("stages.fine.optim.betas.1", 0.99, {}),
        ("stages.fine.save.2", "tower", {}),
    ],
)
def test_every_way_gives_one_recipe(path, value, settings, tmp_path):
    first, *others = every_way(tmp_path, path, value, **settings)
    assert others == [first] * 5
    found: object = first.model_dump()
    for key in path.replace("fine", "0").split("."):
        found = found[int(key) if key.isdigit() else key]
    assert found == value


def test_what_follows_from_a_setting_follows_from_its_override(tmp_path):
    connector = every_way(tmp_path, "model.connector.kind", "mlp")[0].model.connector
    assert connector.merge == 1
    back = made_recipe(made_recipe(document(), {"model.connector.kind": "mlp"}), {"seed": 1})
    assert made_recipe(back, {"model.connector.kind": "swiglu"}).model.connector.merge == 2
    given = {"model.connector": {"merge": 2}, "model.connector.kind": "mlp"}
    assert made_recipe(document(), given).model.connector.merge == 2


def test_an_override_of_one_value_leaves_the_others(tmp_path):
    def stage(path, value):
        return every_way(tmp_path, path, value)[0].stages[0]

    assert stage("stages.0.length.samples", 9).length.model_dump(exclude_none=True) == {
        "samples": 9
    }
    assert stage("stages.0.data.photos.epochs", 2).shares({}) == {"photos": 0.5}
    assert stage("stages.0.objectives.contrastive", 0.1).objectives == {
        "next_token": 1.0,
        "contrastive": 0.1,
    }
    assert stage("stages.0.optim.betas.1", 0.99).optim.betas == (0.9, 0.99)


def test_a_decay_that_was_given_stays_and_is_refused(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(write_yaml(document(schedule={"name": "wsd", "decay": {"share": 0.3}})))
    with pytest.raises(RecipeError, match=r"override stages.0.schedule.name.*\n.*has no `decay`"):
        made_recipe(path, {"stages.0.schedule.name": "cosine"})
