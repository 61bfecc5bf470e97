"""`sailvit soup`: the mean of near checkpoints; refusals of what is not one model, or far apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from sailvit.api.models import load_run
from sailvit.cli.app import app
from sailvit.models.loading.parts import load_tower
from tiny_parts import Parts, save_model


def moved(source: str | Path, folder: Path, seed: int, by: float) -> Path:
    """A copy whose every tensor was moved by noise."""
    shutil.copytree(source, folder)
    state = load_file(folder / "model.safetensors")
    torch.manual_seed(seed)
    noisy = {name: tensor + by * torch.randn_like(tensor) for name, tensor in state.items()}
    save_file(noisy, folder / "model.safetensors", {"format": "pt"})
    return folder


def soup(*given: Path | str) -> Result:
    return CliRunner().invoke(app, ["soup", *map(str, given)])


def test_the_mean_of_three_towers_loads(parts: Parts, tmp_path: Path):
    towers = [moved(parts.tower("siglip"), tmp_path / str(n), n, 0.01) for n in range(3)]
    result = soup(*towers, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.exception
    assert result.output.count("of their norm apart") == 3
    states = [load_file(tower / "model.safetensors") for tower in towers]
    found = load_file(tmp_path / "out/model.safetensors")
    assert found.keys() == states[0].keys()
    for name, tensor in found.items():
        wanted = torch.stack([state[name] for state in states]).double().mean(0).float()
        torch.testing.assert_close(tensor, wanted, rtol=0, atol=1e-7)
    made, _ = load_tower(parts.config().model_copy(update={"tower": str(tmp_path / "out")}))
    assert made.side == 4


def test_the_mean_of_equal_weights_is_these_weights(parts: Parts, tmp_path: Path):
    tower = parts.tower("siglip")
    assert soup(tower, tower, tower, "--out", tmp_path / "out").exit_code == 0
    found, wanted = (load_file(Path(f) / "model.safetensors") for f in (tmp_path / "out", tower))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_first_ones_weights_in_other_formats_are_left_out(parts: Parts, tmp_path: Path):
    tower = moved(parts.tower("siglip"), tmp_path / "first", 0, 0.0)
    for name in ("pytorch_model.bin", "model.onnx", "pytorch_model.bin.index.json", "notes.md"):
        (tower / name).write_text("kept as it is")
    assert soup(tower, tower, "--out", tmp_path / "out").exit_code == 0
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found >= {"config.json", "model.safetensors", "notes.md"}
    assert not any("pytorch" in name or "onnx" in name for name in found)


def test_models_of_three_parts_are_averaged_part_by_part(parts: Parts, tmp_path: Path):
    folder = save_model(parts.build(), tmp_path / "one")
    shutil.copytree(folder, tmp_path / "two")
    shutil.rmtree(tmp_path / "two/tower")
    moved(folder / "tower", tmp_path / "two/tower", 1, 0.02)
    assert soup(folder, tmp_path / "two", "--out", tmp_path / "out").exit_code == 0
    states = [
        load_run(each).bundle.mllm.state_dict()
        for each in (folder, tmp_path / "two", tmp_path / "out")
    ]
    for name, tensor in states[2].items():
        torch.testing.assert_close(tensor, (states[0][name] + states[1][name]) / 2)


def test_far_ones_are_refused_by_distance(parts: Parts, tmp_path: Path):
    tower = parts.tower("siglip")
    far = moved(tower, tmp_path / "far", 1, 0.5)
    result = soup(tower, far, "--out", tmp_path / "out")
    assert "of their norm apart, and 0.5 is the most that is averaged" in str(result.exception)
    assert not (tmp_path / "out").exists()
    assert soup(tower, far, "--limit", "9", "--out", tmp_path / "out").exit_code == 0


@pytest.mark.parametrize("other", ["aimv2", "clip"])
def test_other_architectures_are_refused_in_a_sentence(parts: Parts, tmp_path: Path, other: str):
    result = soup(parts.tower("siglip"), parts.tower(other), "--out", tmp_path / "out")
    assert "are of different architectures" in str(result.exception)
    assert f"model_type is '{other}_vision_model' and 'siglip" in str(result.exception)


def test_other_heads_and_other_shapes_are_refused(parts: Parts, tmp_path: Path):
    tower = Path(parts.tower("siglip"))
    heads = moved(tower, tmp_path / "heads", 1, 0.01)
    config = json.loads((heads / "config.json").read_text())
    (heads / "config.json").write_text(json.dumps({**config, "num_attention_heads": 2}))
    result = soup(tower, heads, "--out", tmp_path / "out")
    assert "num_attention_heads is 2 and 4" in str(result.exception)
    shapes = moved(tower, tmp_path / "shapes", 1, 0.01)
    state = load_file(shapes / "model.safetensors")
    name = next(iter(state))
    save_file({**state, name: state[name][:-1].clone()}, shapes / "model.safetensors")
    result = soup(tower, shapes, "--out", tmp_path / "out")
    assert f"have different shapes: {name} is" in str(result.exception)


def test_a_folder_without_a_model_is_named(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    result = soup(tmp_path / "empty", tmp_path / "empty", "--out", tmp_path / "out")
    assert "has no config.json and no parts" in str(result.exception)
