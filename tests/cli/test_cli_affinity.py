"""`sailvit affinity` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from sailvit.cli.app import app
from sailvit.core.errors import DataError, ModelError, RunError, SailvitError
from tiny_parts import Parts, picture, save_model

WORDS = ["red", "blue", "large", "small", "square", "circle", "left", "right"]


def affinity(*words: object) -> str:
    made = CliRunner().invoke(app, ["affinity", *map(str, words)], env={"COLUMNS": "80"})
    if isinstance(made.exception, SailvitError):
        raise made.exception
    assert made.exit_code == 0, made.output
    assert max(map(len, made.output.splitlines())) <= 80 or "/" in made.output
    return made.output


@pytest.fixture(scope="module")
def model(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(parts.build(), tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pictures")
    for n in range(12):
        Image.fromarray(picture(n, 40, 30)).save(made / f"{n:02}.png")
    (made / "broken.png").write_bytes(b"\x89PNG no picture")
    return made


@pytest.fixture(scope="module")
def captioned(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("captioned")
    for n in range(12):
        Image.fromarray(picture(n, 40, 30)).save(made / f"{n:02}.png")
        (made / f"{n:02}.txt").write_text(f"a {WORDS[n % 8]} {WORDS[n // 2]}")
    return made


def test_towers_beside_two_languages_without_captions(parts, folder, tmp_path):
    out = tmp_path / "out"
    towers = (parts.tower("siglip"), f"other={parts.tower('clip')}")
    languages = ("--language", parts.language("llama"), "--language", parts.language("qwen3"))
    told = affinity(*towers, *languages, "--images", folder, "--out", out, "--pictures", 8)
    assert "patches and llama, as published" in told
    assert "drift of other from siglip" in told or "not measured: drift" in told
    assert "not measured: measures with captions" in told
    found = json.loads((out / "affinity.json").read_text())
    pairs = [(each["tower"], each["language"]) for each in found["published"]]
    assert pairs == [(t, n) for t in ("siglip", "other") for n in ("llama", "qwen3")]
    first = found["published"][0]
    assert first["counts"]["visual"] == 5 * 16
    assert len(found["images"]["published"]) == 5
    assert not found["joint"]
    # Again, over the file that it made; and never over another one.
    affinity(parts.tower("clip"), *languages, "--images", folder, "--out", out, "--pictures", 3)
    (out / "affinity.json").write_text('{"models": {}}')
    with pytest.raises(RunError, match="not written by this command"):
        affinity(*towers, *languages, "--images", folder, "--out", out)


def test_a_model_is_also_measured_behind_its_connector(model, captioned, tmp_path):
    told = affinity(
        model, "--images", captioned, "--out", tmp_path, "--reference", model, "--pairs", 12
    )
    assert "behind the connector" in told
    assert "integration rate" in told
    found = json.loads((tmp_path / "affinity.json").read_text())
    (entry,) = found["joint"]
    assert entry["alignment"]["value"] == pytest.approx(1, abs=1e-6)
    assert entry["retrieval"]["image_to_text_at_5"]["n"] == 12
    assert len(entry["integration"]["layers"]) == 2
    assert found["paired"][0]["pairs"] == 12
    assert found["left_out"] == []


def test_what_is_missing_is_said(parts, model, folder, tmp_path):
    tower = parts.tower("siglip")
    with pytest.raises(ModelError, match="name the language"):
        affinity(tower, "--images", folder, "--out", tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    language = ("--language", parts.language("llama"))
    with pytest.raises(DataError, match="holds no pictures"):
        affinity(tower, *language, "--images", empty, "--out", tmp_path)
    with pytest.raises(ModelError, match="has no connector"):
        affinity(tower, *language, "--images", folder, "--out", tmp_path, "--reference", tower)
