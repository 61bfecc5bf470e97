"""`sailvit init`: a recipe that plan takes, with sizes that fit; sentences for what does not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sailvit.api import first_recipe as module
from sailvit.cli.app import app
from sailvit.preflight.plan import plan
from sailvit.recipes.loader import load_recipe
from tiny_parts import Parts
from tiny_runs import write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


def init(
    parts: Parts, data: Path, out: Path, *files: str, tower: str | None = None, more: tuple = ()
) -> Result:
    given = [each for file in files for each in ("--data", str(data / file))]
    named = ["--tower", tower or parts.tower("siglip"), "--language", parts.language("llama")]
    images = ["--images", str(data / "images")]
    return CliRunner().invoke(app, ["init", *named, *given, *images, *more, "--out", str(out)])


def test_what_is_written_passes_plan_and_says_why(parts: Parts, data: Path, tmp_path: Path):
    out = tmp_path / "mine.yaml"
    result = init(parts, data, out, "captions.jsonl", "chat.json", "text.jsonl")
    assert result.exit_code == 0, result.exception
    recipe = load_recipe(out)
    assert not plan(recipe).problems
    assert recipe.name == "mine"
    assert [set(stage.train) for stage in recipe.stages] == [
        {"connector"},
        {"connector", "tower"},
        {"connector", "tower", "language"},
    ]
    assert list(recipe.stages[0].data) == ["captions"]
    assert list(recipe.stages[2].data) == ["captions", "chat", "text"]
    assert recipe.model.connector.merge == 1, "4 x 4 patches are few"
    text = out.read_text()
    assert "4 x 4 patches per tile become 16 visual tokens" in text
    assert re.search(r"about \d+ samples of 25\n", text)
    settings = [line for line in text.splitlines() if ":" in line and not line.startswith("#")]
    bare = ("name", "model", "stages", "tower", "language", "train", "data: [captions, ")
    named = ("captions: {format", "chat: {format", "text: {format")
    for line in settings:
        assert "#" in line or line.strip().startswith(bare + named), line


def test_plan_and_show_take_what_is_written(
    parts: Parts, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sailvit.models.measures.peak.matmul_rate", lambda *_: 1e12)
    out = tmp_path / "mine.yaml"
    assert init(parts, data, out, "captions.jsonl", "chat.json").exit_code == 0
    environment = {"COLUMNS": "80", "NO_COLOR": "1"}
    planned = CliRunner().invoke(app, ["plan", str(out)], env=environment)
    assert planned.exit_code == 0, planned.output
    assert "mine: parameters, and how many train" in planned.output
    assert "problem" not in planned.output
    shown = CliRunner().invoke(app, ["recipe", "show", str(out)], env=environment)
    assert shown.exit_code == 0, shown.output
    (tmp_path / "shown.yaml").write_text(shown.output)
    assert load_recipe(tmp_path / "shown.yaml") == load_recipe(out)


def test_nothing_is_overwritten(parts: Parts, data: Path, tmp_path: Path):
    out = tmp_path / "mine.yaml"
    out.write_text("mine")
    result = init(parts, data, out, "captions.jsonl")
    assert "exists and is not overwritten" in str(result.exception)
    assert out.read_text() == "mine"


def test_what_cannot_be_used_is_said_and_nothing_is_written(
    parts: Parts, data: Path, tmp_path: Path
):
    out = tmp_path / "mine.yaml"
    (tmp_path / "gone.jsonl").write_text(
        "".join(json.dumps({"image": f"{n}.jpg", "text": "red"}) + "\n" for n in range(40))
    )
    said = {
        "no_such.jsonl": "does not exist",
        str(tmp_path / "gone.jsonl"): "40 of 40 records cannot be used",
    }
    for file, words in said.items():
        assert words in str(init(parts, data, out, file).exception)
    broken = init(parts, data, out, "captions.jsonl", tower=parts.language("llama"))
    assert type(broken.exception).__name__ == "ModelError"
    assert not out.exists()


def test_images_that_are_elsewhere_are_to_be_named(parts: Parts, data: Path, tmp_path: Path):
    given = ("--tower", parts.tower("siglip"), "--language", parts.language("llama"))
    file = tmp_path / "many.jsonl"
    # More than a run puts up with.
    file.write_text((data / "captions.jsonl").read_text() * 3)
    words = ["init", *given, "--data", str(file), "--out", str(tmp_path / "a.yaml")]
    result = CliRunner().invoke(app, words)
    assert "missing file" in str(result.exception)
    assert str(result.exception).endswith("name another with --images")
    assert not (tmp_path / "a.yaml").exists()


@pytest.mark.parametrize(("side", "merge"), [(16, 1), (24, 2), (27, 3), (32, 2), (64, 4), (37, 1)])
def test_merges_keep_a_tile_within_256_tokens_where_the_grid_divides(
    side: int, merge: int, parts: Parts, monkeypatch: pytest.MonkeyPatch
):
    class Drawn:
        class mllm:  # noqa: N801 - as a built model has it
            class tower:  # noqa: N801
                pass

    Drawn.mllm.tower.side = side
    monkeypatch.setattr(module, "build", lambda config, weights: Drawn)
    assert module._merge(parts.config(), "merge_mlp")[0] == merge
    assert module._merge(parts.config(), "mlp")[0] == 1


@pytest.mark.parametrize("kind", ["mlp", "swiglu", "norm_merge_mlp"])
def test_the_connector_can_be_of_every_kind(parts: Parts, data: Path, tmp_path: Path, kind: str):
    out = tmp_path / "mine.yaml"
    assert init(parts, data, out, "chat.json", more=("--connector", kind)).exit_code == 0
    recipe = load_recipe(out)
    assert recipe.model.connector.kind == kind
    assert not plan(recipe).problems


@pytest.mark.parametrize("free", [200, 40, 1])
def test_sizes_shrink_with_the_memory_that_is_free(
    free: int, parts: Parts, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "free_memory", lambda device: free * 2**20)
    out = tmp_path / "mine.yaml"
    assert init(parts, data, out, "chat.json").exit_code == 0
    recipe = load_recipe(out)
    assert recipe.sequence == {200: 1024, 40: 1024, 1: 64}[free]
    assert ("does not fit" in out.read_text()) is (free == 1)


@pytest.mark.parametrize("positions", [512, 96])
def test_packs_are_no_longer_than_the_positions_that_the_language_was_made_for(
    positions: int, parts: Parts, data: Path, tmp_path: Path
):
    language = tmp_path / "language"
    shutil.copytree(parts.language("llama"), language)
    config = json.loads((language / "config.json").read_text())
    (language / "config.json").write_text(
        json.dumps({**config, "max_position_embeddings": positions})
    )
    out = tmp_path / "mine.yaml"
    more = ("--language", str(language))
    assert init(parts, data, out, "chat.json", more=more).exit_code == 0
    recipe = load_recipe(out)
    assert recipe.model.language == str(language)
    assert recipe.sequence == positions
    assert f"the language was made for {positions} positions" in out.read_text()
    assert "positions" not in " ".join(plan(recipe).remarks)


@pytest.mark.parametrize("name", ["no", "null", "on", "a [b], {c}: d #e", "été 😀", "2024"])
def test_names_and_places_are_read_back_as_they_are(
    parts: Parts, data: Path, tmp_path: Path, name: str
):
    tower = tmp_path / f"tower {name}"
    shutil.copytree(parts.tower("siglip"), tower)
    captions = tmp_path / f"{name}.jsonl"
    shutil.copyfile(data / "captions.jsonl", captions)
    out = tmp_path / f"{'2024' if name == 'no' else 'no'}.yaml"
    more = ("--data", str(captions))
    result = init(parts, data, out, "text.jsonl", tower=str(tower), more=more)
    assert result.exit_code == 0, result.exception
    recipe = load_recipe(out)
    assert recipe.name == out.stem
    assert recipe.model.tower == str(tower)
    assert [source.path for source in recipe.sources.values()][1] == str(captions)
    assert recipe.stages[2].data == list(recipe.sources)
