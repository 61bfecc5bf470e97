"""`sailvit equip`: a refined tower in a multimodal model, and target training that starts there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_native_parts import write_native
from typer.testing import CliRunner, Result

from sailvit.api.equip import RECIPE
from sailvit.api.models import load_run
from sailvit.cli.app import app
from sailvit.core.run import RunFolder, read_lines
from sailvit.preflight.plan import plan
from sailvit.recipes.loader import load_recipe
from tiny_parts import Parts
from tiny_runs import recipe, stage, train, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava") / "model"
    write_native(folder, "llava-siglip")
    return folder


def equip(mllm: Path | str, tower: Path | str, out: Path, *more: str) -> Result:
    named = ["equip", str(mllm), "--tower", str(tower), "--out", str(out)]
    return CliRunner().invoke(app, [*named, *more])


def on(data: Path) -> list[str]:
    files = ("captions.jsonl", "chat.json", "text.jsonl")
    given = [each for file in files for each in ("--data", str(data / file))]
    return [*given, "--images", str(data / "images")]


def refined(parts: Parts, folder: Path) -> Path:
    """The siglip tower with other weights, as a refinement leaves it."""
    source = Path(parts.tower("siglip"))
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    state = load_file(source / "model.safetensors")
    torch.manual_seed(7)
    moved = {name: tensor + 0.01 * torch.randn_like(tensor) for name, tensor in state.items()}
    save_file(moved, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_tower_of_the_same_shape_takes_its_place_and_answers(
    parts: Parts, llava: Path, tmp_path: Path
):
    tower, out = refined(parts, tmp_path / "refined"), tmp_path / "out"
    result = equip(llava, tower, out, "--samples", "1000")
    assert result.exit_code == 0, result.exception
    assert "its weights are in place" in result.output
    assert "The connector is kept (mlp, merge 1)." in result.output
    assert "Before training: sources.align" in result.output
    wanted, found = (load_file(each / "model.safetensors") for each in (tower, out / "tower"))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    model = load_run(out)
    assert model.bundle.mllm.connector.config.kind == "mlp"
    assert (out / RECIPE).is_file()


def test_another_family_renews_the_connector_and_says_why(
    parts: Parts, llava: Path, data: Path, tmp_path: Path
):
    out = tmp_path / "out"
    result = equip(llava, parts.tower("aimv2"), out, "--samples", "400", *on(data))
    assert result.exit_code == 0, result.exception
    assert (
        "it is of type aimv2_vision_model, and the model's own tower of type siglip"
        in result.output
    )
    assert "The connector is new (mlp, merge 1)" in result.output
    assert not (out / "connector").exists()
    assert not (out / "model.json").exists()
    assert not plan(load_recipe(out / RECIPE)).problems


def test_heads_that_shapes_do_not_show_are_found_by_features(
    parts: Parts, llava: Path, tmp_path: Path
):
    tower = refined(parts, tmp_path / "refined")
    config = json.loads((tower / "config.json").read_text())
    (tower / "config.json").write_text(json.dumps({**config, "num_attention_heads": 2}))
    result = equip(llava, tower, tmp_path / "out", "--samples", "100")
    assert "gives other features (largest difference" in result.output
    assert "The connector is new" in result.output


def test_the_recipe_trains_and_scales_to_its_budget(
    parts: Parts, llava: Path, data: Path, tmp_path: Path
):
    tower, out = refined(parts, tmp_path / "refined"), tmp_path / "out"
    result = equip(llava, tower, out, "--samples", "120", *on(data))
    assert result.exit_code == 0, result.exception
    made = load_recipe(out / RECIPE)
    assert not plan(made).problems
    assert [each.length.samples for each in made.stages] == [12, 60, 48]
    assert [set(each.train) for each in made.stages] == [
        {"connector"},
        {"connector", "tower", "language"},
        {"connector", "tower", "language"},
    ]
    assert [list(each.data) for each in made.stages] == [
        ["captions"],
        ["captions", "chat", "text"],
        ["chat", "text"],
    ]
    run = RunFolder(tmp_path / "run")
    quick = {"monitoring": {"every": None}, "workers": 0, "precision": "fp32"}
    train(made.model_validate({**made.model_dump(), **quick}), run.path)
    assert all(line["ok"] for line in read_lines(run.proofs))
    assert load_run(run.stage(2, "instruct")).bundle.mllm.connector.config.kind == "mlp"


def test_hours_become_samples_in_proportion(parts: Parts, llava: Path, data: Path, tmp_path: Path):
    tower = refined(parts, tmp_path / "refined")
    found = []
    for hours in ("0.001", "0.01"):
        out = tmp_path / hours
        more = ("--gpu-hours", hours, "--tflops", "0.001")
        assert equip(llava, tower, out, *more, *on(data)).exit_code == 0
        made = load_recipe(out / RECIPE)
        found.append(sum(each.length.samples or 0 for each in made.stages))
    assert found[1] == pytest.approx(10 * found[0], rel=0.1)


def test_a_run_of_ours_is_equipped_with_the_tower_of_another(
    parts: Parts, data: Path, tmp_path: Path
):
    sources = {"chat": {"format": "llava", "path": str(data / "chat.json")}}
    sources["chat"]["images"] = str(data / "images")
    made = recipe(parts, sources, [stage(length={"samples": 6})])
    train(made, tmp_path / "first")
    train(made.model_copy(update={"seed": 8}), tmp_path / "second")
    first, second = (tmp_path / each / "stages/00-only" for each in ("first", "second"))
    out = tmp_path / "out"
    result = equip(first, second, out, "--samples", "100")
    assert result.exit_code == 0, result.exception
    assert "The connector is kept (merge_mlp, merge 2)." in result.output
    states = [load_run(each).bundle.mllm.state_dict() for each in (second, out)]
    own = load_run(first).bundle.mllm.state_dict()
    for name, tensor in states[1].items():
        wanted = states[0] if name.startswith("tower") else own
        assert torch.equal(tensor, wanted[name]), name


def test_two_budgets_or_none_are_refused(llava: Path, tmp_path: Path):
    for more in ((), ("--samples", "100", "--gpu-hours", "1")):
        result = equip(llava, llava, tmp_path / "out", *more)
        assert "give --samples N or --gpu-hours H" in str(result.exception)
    assert not (tmp_path / "out").exists()
