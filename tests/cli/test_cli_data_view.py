"""`sailvit data view`: recipes, stages and bare data on one page, and what is said when something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sailvit.cli.data.view import is_recipe, view
from sailvit.core.errors import DataError, RecipeError
from sailvit.recipes.loader import dump_recipe
from tiny_runs import recipe, stage, write_data

app = typer.Typer()
app.command()(view)


@pytest.fixture
def folder(parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = recipe(
        parts, write_data(tmp_path), [stage("first"), stage("second", data=["captions", "text"])]
    )
    (tmp_path / "tiny.yaml").write_text(dump_recipe(made))
    return tmp_path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(
        app, [str(a) for a in arguments], env={"COLUMNS": "200"}, catch_exceptions=False
    )
    assert result.exit_code == 0
    return result.output


def test_a_recipe_shows_its_first_stage_or_another(folder):
    text = run("tiny.yaml", "--packs", 2)
    assert "2 packs, " in text
    assert "0 records left out, 0 problems" in text
    page = (folder / "view.html").read_text()
    assert "stage first" in page
    assert page.count('class="pack"') == 2
    assert "data:image/png;base64," in page
    run("tiny.yaml", "--stage", "second", "--out", "pages/second.html")
    page = (folder / "pages/second.html").read_text()
    assert "captions, text" in page
    assert ">pair</span>" in page


def test_data_alone_is_read_as_a_recipe_reads_it(folder):
    run(
        "captions.jsonl",
        "--images",
        folder / "images",
        "--recipe",
        "tiny.yaml",
        "--set",
        "sequence=96",
        "--packs",
        50,
    )
    page = (folder / "view.html").read_text()
    assert "packs of 96 tokens" in page
    assert all(f"captions/{n}</b>" in page for n in range(6))
    assert page.count("</b> <span") == 6


def test_a_seed_shows_other_packs(folder):
    pages = []
    for options in ([], [], ["--seed", 7]):
        run("tiny.yaml", "--packs", 1, *options)
        pages.append((folder / "view.html").read_text())
    assert pages[0] == pages[1] != pages[2]


def test_what_is_missing_is_named(folder):
    with pytest.raises(DataError, match=r"chat.json is data, .*say which with --recipe"):
        run("chat.json")
    with pytest.raises(RecipeError, match="no stage 'third'; it has first, second"):
        run("tiny.yaml", "--stage", "third")
    with pytest.raises(DataError, match="gone does not exist"):
        run("gone", "--recipe", "tiny.yaml")


def test_recipes_are_told_from_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_recipe("demo")
    assert is_recipe("my.yaml")
    assert not is_recipe("data.jsonl")
    Path("demo").mkdir()
    assert not is_recipe("demo")
