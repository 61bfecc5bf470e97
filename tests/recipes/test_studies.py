"""What is said of a study's file that is wrong."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sailvit.core.errors import RecipeError
from sailvit.recipes.studies import load_study
from tiny_studies import definition


def complaint(folder: Path, values: dict[str, Any]) -> str:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(RecipeError) as caught:
        load_study(path)
    return str(caught.value)


def test_recipes_start_at_the_studys_folder_and_shipped_names_stay(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    steps = definition()["steps"]
    steps["refine"]["recipe"] = "mine.yaml"
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(definition(steps=steps), sort_keys=False))
    loaded = load_study(path)
    assert loaded.steps["refine"].recipe == str(tmp_path / "mine.yaml")
    assert loaded.steps["target"].recipe == "demo-target"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seedz": 3}, "seedz: unknown key; did you mean seeds?"),
        (
            {"contrast": {"factor": "arms", "base": "base", "refined": "gradual"}},
            "contrast.factor: there is no 'arms'; expected one of arm, data, tower",
        ),
        (
            {"contrast": {"factor": "arm", "base": "basis", "refined": "gradual"}},
            "contrast.base: there is no 'basis'; expected one of gradual, base, joint",
        ),
        (
            {"factors": {"arm": {"gradual": {}, "base": {"refin": None}}}},
            "factors.arm.base: there is no 'refin'; expected one of refine, target",
        ),
        (
            {"contrast": {"factor": "arm", "base": "base", "refined": "base"}},
            "contrast: level base is compared with itself",
        ),
        (
            {"claims": [{"says": "So.", "better": "joint", "than": "joint"}]},
            "claims.0: level joint is compared with itself",
        ),
        (
            {"factors": {"arm": {"gradual": {}, "base": {}, "Base": {"refine": None}}}},
            "factors.arm: levels base and Base differ in capitals alone",
        ),
        ({"set": {"seed": 7}}, "set.seed would have no effect"),
        (
            {"factors": {"arm": {"gradual": {}, "base": {"target": {"set": {"seed": 7}}}}}},
            "factors.arm.base.target.set.seed would have no effect",
        ),
        ({"name": "a/b"}, "name: found 'a/b' (str), expected letters, digits and . _ - alone"),
        (
            {"contrast": {"factor": "arm", "base": False, "refined": "gradual"}},
            "contrast.base: found False (bool), expected a valid string; YAML does not take this word",
        ),
        (
            {"measures": {"world": {"of": "targets"}}},
            "measures.world.of: there is no 'targets'; expected one of refine, target",
        ),
        (
            {"claims": [{"says": "So.", "over": ["towers"]}]},
            "claims.0.over: there is no 'towers'; expected one of data, tower",
        ),
        (
            {
                "steps": {
                    "refine": {"recipe": "demo", "set": {"model.tower": "$target/tower"}},
                    "target": {"recipe": "demo-target"},
                }
            },
            "steps.refine.set.model.tower: there is no 'target'; expected one of new",
        ),
        (
            {
                "steps": {
                    "refine": {"recipe": "demo", "set": {"model.tower": "$new/small"}},
                    "target": {"recipe": "demo-target"},
                }
            },
            "steps.refine.set.model.tower: there is no 'small'; expected one of none",
        ),
        (
            {
                "steps": {
                    "refine": {"recipe": "demo"},
                    "target": {"recipe": "demo-target", "set": {"model.tower": "$refine/eyes"}},
                }
            },
            "steps.target.set.model.tower: there is no 'eyes'; expected one of tower, connector",
        ),
    ],
)
def test_a_wrong_name_is_named_with_the_right_ones(tmp_path: Path, changes, told: str):
    assert told in complaint(tmp_path, definition(**changes))


def test_a_file_that_is_none(tmp_path: Path):
    with pytest.raises(RecipeError, match="does not exist; expected the YAML file of a study"):
        load_study(tmp_path / "no.yaml")
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(RecipeError, match="expected a mapping with name, steps"):
        load_study(tmp_path / "list.yaml")


def test_levels_may_be_named_by_numbers_and_by_words_that_yaml_takes_for_truth(tmp_path: Path):
    arms = "{gradual: {}, base: {refine: null}}"
    sizes = "{full: {}, 0.5: {target: {scale: 0.5}}, 2: {target: {scale: 2}}, off: {refine: null}}"
    path = tmp_path / "study.yaml"
    values = definition(factors="FACTORS")
    text = yaml.safe_dump(values, sort_keys=False)
    path.write_text(text.replace("FACTORS", f"{{arm: {arms}, data: {sizes}}}"))
    assert load_study(path).levels("data") == ["full", "0.5", "2", "off"]
