"""Saved parts: plain Hugging Face folders, proved by reloading, and never replaced by something else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    SiglipImageProcessor,
)

from sailvit.core.errors import ModelError
from sailvit.core.recipe import ImageConfig
from sailvit.models.loading.build import ModelBundle
from sailvit.models.loading.folders import prove_tower, save_part
from tiny_parts import SIDE, TOWERS, Parts


def moved(bundle: ModelBundle) -> ModelBundle:
    """The model bundle after something like training."""
    with torch.no_grad():
        for parameter in bundle.mllm.parameters():
            parameter.add_(0.01)
    return bundle


@pytest.mark.parametrize("name", TOWERS)
def test_a_saved_tower_reloads_with_equal_features_in_its_own_architecture(
    parts: Parts, tmp_path: Path, name: str
):
    bundle = moved(parts.build(name))
    save_part(bundle, "tower", tmp_path / "tower")
    tower = bundle.mllm.tower.eval()
    again = AutoModel.from_pretrained(tmp_path / "tower").eval()
    pixels = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    inputs = tower.family.pixels(pixels, tower.patch)
    assert torch.equal(again(**inputs).last_hidden_state, tower.model(**inputs).last_hidden_state)
    before, after = (
        json.loads((Path(f) / "config.json").read_text())
        for f in (parts.tower(name), tmp_path / "tower")
    )
    ignored = {"transformers_version", "dtype"}
    assert {k: v for k, v in after.items() if k not in ignored} == {
        k: v for k, v in before.items() if k not in ignored
    }
    files = {path.name for path in (tmp_path / "tower").iterdir()}
    assert files == {"config.json", "model.safetensors", "preprocessor_config.json"}


@pytest.mark.parametrize("part", ["tower", "connector", "language"])
def test_whoever_may_read_new_files_may_read_the_weights(parts: Parts, tmp_path: Path, part):
    before = os.umask(0o027)
    try:
        save_part(parts.build(), part, tmp_path / part)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / part).iterdir()}
    assert modes["model.safetensors"] == 0o640
    assert set(modes.values()) == {0o640}


def test_the_preprocessor_config_beside_it_is_the_one_in_force(parts: Parts, tmp_path: Path):
    save_part(
        parts.build(image=ImageConfig(size=48, mean=(0.1, 0.1, 0.1))), "tower", tmp_path / "tower"
    )
    written = json.loads((tmp_path / "tower/preprocessor_config.json").read_text())
    assert (written["size"], written["image_mean"]) == (
        {"height": 48, "width": 48},
        [0.1, 0.1, 0.1],
    )
    assert written["image_std"] == [0.2, 0.3, 0.25]


def test_a_shipped_tower_also_has_a_working_image_processor(tmp_path: Path):
    from sailvit.core.study.definition import NewTower
    from sailvit.models.loading.small import save_small_tower

    save_small_tower(tmp_path / "tower", NewTower(family="siglip", size=SIDE), seed=0)
    processor = SiglipImageProcessor.from_pretrained(tmp_path / "tower")
    pixels = processor(torch.zeros(3, 50, 40, dtype=torch.uint8).numpy(), return_tensors="pt")[
        "pixel_values"
    ]
    assert pixels.shape == (1, 3, SIDE, SIDE)
    assert torch.equal(pixels, torch.full_like(pixels, -1.0))


@pytest.mark.parametrize("name", ["llama", "gemma"])
def test_a_saved_language_is_a_plain_one(parts: Parts, tmp_path: Path, name: str):
    bundle = moved(parts.build(language=name))
    save_part(bundle, "language", tmp_path / "language")
    assert "sailvit" not in (tmp_path / "language/config.json").read_text()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "language")
    assert again.config._attn_implementation == "sdpa"
    expected = bundle.mllm.language.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "language").chat_template
        == bundle.tokenizer.chat_template
    )


def test_a_tower_that_comes_back_different_is_refused_and_the_old_folder_stays(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bundle = parts.build()
    save_part(bundle, "tower", tmp_path / "tower")
    old = (tmp_path / "tower/model.safetensors").read_bytes()
    moved(bundle)
    sound = PreTrainedModel.save_pretrained

    def corrupted(
        model: PreTrainedModel, folder: Path, state_dict: dict[str, torch.Tensor]
    ) -> None:
        name = "encoder.layers.1.mlp.fc2.weight"
        weight = state_dict[name].clone()
        weight[0, 0] += 1e-3
        sound(model, folder, state_dict={**state_dict, name: weight})

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", corrupted)
    with pytest.raises(
        ModelError,
        match=r"other features than the one in memory \(largest difference .*not published",
    ):
        save_part(bundle, "tower", tmp_path / "tower")
    assert (tmp_path / "tower/model.safetensors").read_bytes() == old
    monkeypatch.undo()
    save_part(bundle, "tower", tmp_path / "tower")
    assert (tmp_path / "tower/model.safetensors").read_bytes() != old
    assert [path.name for path in tmp_path.iterdir()] == ["tower"]


def test_a_tower_that_has_diverged_is_refused_as_such(parts: Parts, tmp_path: Path):
    bundle = parts.build()
    with torch.no_grad():
        next(bundle.mllm.tower.parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match="no finite numbers: it has diverged"):
        save_part(bundle, "tower", tmp_path / "tower")
    assert not (tmp_path / "tower").exists()


def test_proving_leaves_the_mode_as_it_was(parts: Parts, tmp_path: Path):
    bundle = parts.build()
    save_part(bundle, "tower", tmp_path / "tower")
    tower = bundle.mllm.tower
    for mode in (True, False):
        tower.train(mode)
        prove_tower(tower, tmp_path / "tower")
        assert tower.training == tower.model.training == mode
