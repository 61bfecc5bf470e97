"""`sailvit data stats` and `sailvit data curate`, as a user runs them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sailvit.cli.data.app import data
from sailvit.core.errors import DataError, SailvitError
from sailvit.core.recipe import SourceConfig
from sailvit.data.sources import open_source

TEXTS = (
    "A red circle stands left of a blue square in the garden.",
    "Ein Hund liegt auf dem Tisch in der Küche.",
)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(
        data, list(map(str, arguments)), env={"COLUMNS": "160", "NO_COLOR": "1"}
    )
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Twelve captions: every third in German, the last a copy of the first, one without its image."""
    chooser, lines = np.random.default_rng(0), []
    for i in range(12):
        cells = Image.fromarray(chooser.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        file = io.BytesIO()
        cells.resize((48, 40 + i), Image.Resampling.BICUBIC).save(file, format="JPEG")
        (tmp_path / f"{i}.jpg").write_bytes(file.getvalue())
        lines.append({"id": f"r{i}", "image": f"{i}.jpg", "text": f"{TEXTS[i % 3 == 2]} {i}"})
    lines[11] = lines[0]
    lines[5]["image"] = "none.jpg"
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_stats_as_table_json_and_page(rows: Path, tmp_path: Path):
    text = run(
        "stats",
        rows,
        "--json",
        tmp_path / "s.json",
        "--html",
        tmp_path / "s.html",
        "--format",
        "captions",
    )
    for expected in (
        "rows: 12 records, 11 images",
        "image height",
        "caption 100.0 %",
        "en 81.8 %, de 18.2 %",
    ):
        assert expected in text
    assert "1 image byte for byte" in text
    assert "1 unreadable" in text
    assert "rows at 5" in text
    values = json.loads((tmp_path / "s.json").read_text())
    assert values["copies"]["picture"]["count"] == 1
    page = (tmp_path / "s.html").read_text()
    assert page.count("data:image/jpeg") == 13
    assert "<script" not in page


def test_stats_with_the_tokens_of_a_recipe_and_of_a_few_records(rows: Path):
    text = run("stats", rows, "--recipe", "demo", "--samples", 4, "--no-near")
    assert "4 of 12 records" in text
    assert "tokens" in text
    assert "tiles" in text
    assert "look alike" not in text


def test_curate_writes_a_selection_that_a_recipe_reads(rows: Path, tmp_path: Path):
    settings = tmp_path / "filters.yaml"
    settings.write_text(
        "filters:\n  - language: {keep: [en]}\n  - duplicate: {}\nresampling: {share: 0.9}\n"
    )
    out = tmp_path / "chosen"
    text = run("curate", rows, "--filters", settings, "--out", out)
    assert "language de: 3" in text
    assert "duplicate: r0 (as at position 0)" in text
    assert "n-grams of 4 words" in text
    assert f"In a recipe: {out.name}: {{format: selected, path: {out}}}" in text
    source = open_source("chosen", SourceConfig(format="selected", path=str(out)), Path())
    report = json.loads((out / "report.json").read_text())
    assert len(source) == report["kept"]
    assert {source[i].id for i in range(len(source))} <= {
        "r0",
        "r1",
        "r3",
        "r4",
        "r6",
        "r7",
        "r9",
        "r10",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "filters: [{lenght: {}}]",
            r"f.yaml: filters: unknown filter 'lenght'; did you mean length",
        ),
        ("filters: [{length: {}", r"f.yaml:1:\d+: not valid YAML"),
        ("- 1", "expected a mapping"),
        (None, r"f.yaml cannot be read"),
    ],
)
def test_filters_that_cannot_be_used(rows: Path, tmp_path: Path, text: str | None, message: str):
    if text is not None:
        (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(SailvitError, match=message):
        run("curate", rows, "--filters", tmp_path / "f.yaml", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_data_that_are_not_there(tmp_path: Path):
    with pytest.raises(DataError, match=r"nothing.jsonl does not exist"):
        run("stats", tmp_path / "nothing.jsonl")


def test_what_a_source_left_out_when_it_opened_is_said(rows: Path, tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("0", "1", "2"):
        (folder / f"{name}.jpg").write_bytes((tmp_path / f"{name}.jpg").read_bytes())
    (folder / "0.txt").write_text("a caption of six words here")
    assert "no caption in folder, " in run("stats", folder)
    filters = tmp_path / "filters.yaml"
    filters.write_text("filters:\n  - length: {at_least: 1}\n")
    text = run("curate", folder, "--filters", filters, "--out", tmp_path / "kept")
    assert "no caption in folder, " in text
    assert "(and 1 more)" in text


def test_a_selection_of_nothing_is_an_exit_code(rows: Path, tmp_path: Path):
    filters = tmp_path / "filters.yaml"
    filters.write_text("filters:\n  - length: {at_least: 4000}\n")
    given = [
        "curate",
        rows,
        "--filters",
        filters,
        "--out",
        tmp_path / "kept",
        "--format",
        "captions",
    ]
    result = CliRunner().invoke(data, list(map(str, given)))
    assert result.exit_code == 1
    assert "no record is left" in result.output
    assert "In a recipe" not in result.output
