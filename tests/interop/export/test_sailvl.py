"""SAIL-VL2's names: stock transformers loads them with our code, and they are read back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import loader, written
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from sailvit.core.errors import ModelError
from sailvit.core.recipe import ImageConfig
from sailvit.interop.layouts.chat import MEAN, STD
from sailvit.interop.parts import take_parts
from tiny_parts import Parts, picture

FITS: dict[str, Any] = {
    "tower": "aimv2",
    "language": "qwen3",
    "placeholder": "<IMG_CONTEXT>",
    "image": ImageConfig(max_tiles=4, wrap=("<img>", "</img>"), newline=True, mean=MEAN, std=STD),
}


@torch.no_grad()
def test_it_answers_as_in_memory_and_has_the_public_names(parts: Parts, tmp_path: Path):
    load = loader(parts, **FITS)
    parity = written(load, "sailvl", tmp_path / "out")
    assert max(parity.worst.values()) < 1e-5
    names = set(load_file(tmp_path / "out" / "model.safetensors"))
    assert {
        "vision_model.preprocessor.patchifier.proj.weight",
        "vision_model.trunk.blocks.0.attn.qkv.weight",
        "mlp1.0.weight",
        "mlp1.3.bias",
        "language_model.model.embed_tokens.weight",
        "language_model.lm_head.weight",
    } <= names
    # What reads released SAIL-VL2 checkpoints reads it too.
    taken = take_parts(str(tmp_path / "out"), tmp_path / "parts")
    assert not taken.refused
    assert not taken.left_out
    connector = load_file(tmp_path / "parts" / "connector" / "model.safetensors")
    for name, tensor in load().connector.state_dict().items():
        assert torch.equal(connector[name], tensor)
    # Kits load it by AutoModel and call `chat`.
    model = AutoModel.from_pretrained(
        tmp_path / "out", dtype=torch.float32, trust_remote_code=True
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    trained = load()
    image = Image.fromarray(picture(1))
    pixels = trained.bundle.mllm.tower.normalised(
        trained.model.processor([{"role": "user", "content": "<image>"}], [image])["pixel_values"]
    )
    options = {"max_new_tokens": 5, "do_sample": False}
    answer = model.chat(tokenizer, pixels, "What is red?", options, num_patches_list=[1])
    assert answer == trained.model.generate(image, "What is red?", max_new_tokens=5)


@torch.no_grad()
def test_a_saved_copy_has_the_same_weights(parts: Parts, tmp_path: Path):
    written(loader(parts, **FITS), "sailvl", tmp_path / "out")
    options = {"dtype": torch.float32, "trust_remote_code": True}
    model = AutoModel.from_pretrained(tmp_path / "out", **options)
    model.save_pretrained(tmp_path / "again")
    again, told = AutoModel.from_pretrained(tmp_path / "again", output_loading_info=True, **options)
    assert not told["missing_keys"]
    wanted, found = model.state_dict(), again.state_dict()
    assert wanted.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    file = tmp_path / "again" / "model.safetensors"
    kept = {name: t for name, t in load_file(file).items() if "mlp" not in name}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks \d+ of the model's weights"):
        AutoModel.from_pretrained(tmp_path / "again", **options)


def test_downloads_are_those_that_were_asked_for(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written(loader(parts, **FITS), "sailvl", tmp_path / "out")
    cls = type(AutoModel.from_pretrained(tmp_path / "out", trust_remote_code=True))
    asked: list[dict[str, Any]] = []

    def download(name: str, **given: Any) -> str:
        asked.append({"name": name, **given})
        return str(tmp_path / "out")

    monkeypatch.setattr(sys.modules[cls.__module__], "snapshot_download", download)
    cls.from_pretrained("some/model", revision="v2", cache_dir="there", token="mine")
    [found] = asked
    assert found.pop("allow_patterns")
    wanted = {"revision": "v2", "cache_dir": "there", "token": "mine"}
    assert found == {"name": "some/model", **wanted}


def test_what_does_not_fit_says_what_would(parts: Parts, tmp_path: Path):
    with pytest.raises(ModelError) as error:
        written(loader(parts), "sailvl", tmp_path / "out")
    for text in ("no AIMv2", "model.image.wrap: [<img>, </img>]", "placeholder: <IMG_CONTEXT>"):
        assert text in str(error.value)
