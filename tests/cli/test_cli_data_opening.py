"""What commands on data say of data that they wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from sailvit.cli.data.opening import recipe_line
from sailvit.recipes.dialect import read_yaml


@pytest.mark.parametrize("name", ["kept", "no", "2024", "a, b: [c] #d", "été 😀"])
def test_the_line_for_a_recipe_is_read_as_the_place(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    line = recipe_line(name, "selected", Path(name))
    read = read_yaml(line.removeprefix("In a recipe: "), "the line")
    assert read == {name: {"format": "selected", "path": str(tmp_path / name)}}
