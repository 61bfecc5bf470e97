"""`sailvit recipe show|schema`, `formats` and `towers`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from typer.testing import CliRunner

from sailvit.cli.app import app
from sailvit.core.recipe import SourceConfig
from sailvit.data.sources import EXAMPLES, FORMATS
from sailvit.models.towers.families import FAMILIES
from sailvit.recipes.loader import load_recipe


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.exception
    return result.output


def test_a_shown_recipe_is_the_one_that_runs(tmp_path: Path):
    setting = "stages.fine.optim.lr=0.5"
    path = tmp_path / "shown.yaml"
    path.write_text(shown("recipe", "show", "demo", "--set", setting))
    assert load_recipe(path) == load_recipe("demo", [setting])


def test_the_schema_describes_every_setting_and_refuses_others():
    schema = json.loads(shown("recipe", "schema"))
    sections = {"Recipe": schema, **schema["$defs"]}
    assert {"Stage", "ModelConfig", "Length", "CheckpointConfig"} <= sections.keys()
    for name, section in sections.items():
        assert section.get("additionalProperties") is False or "enum" in section, name
        for key, value in section.get("properties", {}).items():
            # pydantic leaves out a description that is the same as its section's own.
            section_of = value.get("$ref", "").removeprefix("#/$defs/")
            told = value.get("description") or sections[section_of].get("description")
            assert told, f"{name}.{key}"


def test_every_format_is_listed_with_a_source_that_a_recipe_takes():
    text = shown("formats")
    assert EXAMPLES.keys() == FORMATS.keys()
    for name, example in EXAMPLES.items():
        assert SourceConfig.model_validate(yaml.safe_load(example)).format == name
        assert example in text
    # As `sailvit data curate` writes it: a folder.
    assert yaml.safe_load(EXAMPLES["selected"])["path"] == "curated"


def test_every_family_of_towers_is_listed():
    text = shown("towers")
    for name, family in FAMILIES.items():
        assert re.search(rf"^{name} +{re.escape(family.example)}$", text, re.MULTILINE)
        assert "/" in family.example
