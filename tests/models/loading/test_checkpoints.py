"""Checkpoints that cannot be used as they are: a sentence each; and text models taken out of multimodal ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from small_tokenizers import CHATML, byte_tokenizer
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoModelForCausalLM,
    BertConfig,
    CLIPVisionConfig,
    Gemma3Config,
    LlavaConfig,
    Qwen2VLConfig,
    T5Config,
    WhisperConfig,
)

from sailvit.core.errors import ModelError
from sailvit.models.guards.checkpoint_files import (
    _UNDONE,
    refuse_quantised,
    safetensors_problem,
)
from sailvit.models.loading.build import build
from sailvit.models.loading.folders import save_part
from tiny_parts import LANGUAGES, PREPROCESSOR, TOWERS, Parts

TEXT: dict[str, Any] = {**LANGUAGES["llama"].to_dict(), "head_dim": 8}
TINY = {
    name: TEXT[name]
    for name in (
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "vocab_size", "initializer_range"),
        *("bos_token_id", "eos_token_id", "pad_token_id"),
    )
}
ROPE = {"rope_type": "default", "rope_theta": 1e6}
EYE = CLIPVisionConfig(
    hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, patch_size=16
).to_dict()
SEEING = {
    "gemma3": lambda: Gemma3Config(
        text_config={**TINY, "head_dim": 8},
        vision_config={**EYE, "model_type": "siglip_vision_model"},
    ),
    "llava": lambda: LlavaConfig(text_config=TEXT, vision_config=EYE, image_token_index=5),
    "qwen2_vl": lambda: Qwen2VLConfig(
        text_config={**TINY, "rope_parameters": {**ROPE, "mrope_section": [1, 1, 2]}},
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2},
    ),
}


@pytest.mark.parametrize("name", SEEING)
def test_the_text_model_of_a_multimodal_checkpoint_is_the_language(
    parts: Parts, tmp_path: Path, name: str
):
    config = SEEING[name]()
    torch.manual_seed(0)
    whole = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)](config).eval()
    whole.save_pretrained(tmp_path / "whole")
    byte_tokenizer(CHATML).save_pretrained(tmp_path / "whole")
    asked = parts.config().model_copy(update={"language": str(tmp_path / "whole")})
    assert build(asked, weights="meta").mllm.language.config.model_type != config.model_type
    made = build(asked, 0)
    assert any(f"of a {config.model_type}" in note for note in made.notes)
    save_part(made, "language", tmp_path / "language")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "language").eval()
    tokens = torch.arange(3, 30)[None]
    with torch.no_grad():
        expected = whole(input_ids=tokens).logits
        torch.testing.assert_close(again(input_ids=tokens).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TOWERS["siglip"], "siglip_vision_model, of which transformers has no causal language"),
        (T5Config(), "t5, an encoder-decoder"),
        (WhisperConfig(), "whisper, an encoder-decoder"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_no_language(parts: Parts, tmp_path: Path, config: Any, message: str):
    config.save_pretrained(tmp_path)
    asked = parts.config().model_copy(update={"language": str(tmp_path)})
    with pytest.raises(ModelError, match=message) as raised:
        build(asked, weights="meta")
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LANGUAGES["llama"], r"llama, which reads text \(input_ids\), not tiles"),
        (BertConfig(), r"bert, which reads text"),
        (WhisperConfig(), r"whisper, which reads audio \(input_features\)"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_no_tower(parts: Parts, tmp_path: Path, config: Any, message: str):
    config.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    asked = parts.config().model_copy(update={"tower": str(tmp_path)})
    with pytest.raises(ModelError, match=message) as raised:
        build(asked, weights="meta")
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("layer", [3, -4, 30])
def test_a_feature_layer_that_is_not_there(parts: Parts, layer: int):
    for made in (partial(build, weights="meta"), partial(build, seed=0)):
        with pytest.raises(ModelError, match=f"feature_layer is {layer}, but .* has 2 blocks"):
            made(parts.config(tower="clip", feature_layer=layer))


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def quantised(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))


DAMAGE = {
    "cut off": (cut, "bytes where its header tells .* cut off"),
    "pickled": (pickled, r"pytorch_model\.bin.*weights_only=True.*save_pretrained"),
    "quantised": (quantised, r"quantised \(gptq\).*neither trained nor run frozen"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights in safetensors"),
    "config": (lambda f: (f / "config.json").write_text("{"), r"config\.json is not JSON"),
    "no config": (lambda f: (f / "config.json").unlink(), r"no config\.json"),
    "pointer": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec"),
        "Git LFS pointer.*git lfs pull",
    ),
}


@pytest.mark.parametrize("part", ["tower", "language"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_folders(parts: Parts, tmp_path: Path, kind: str, part: str):
    damage, message = DAMAGE[kind]
    shutil.copytree(getattr(parts.config(), part), tmp_path / "copy")
    damage(tmp_path / "copy")
    asked = parts.config().model_copy(update={part: str(tmp_path / "copy")})
    with pytest.raises(ModelError, match=f"cannot load the {part} from the folder .*{message}"):
        build(asked, 0)


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("fp8", r"FineGrainedFP8Config as Q; A\.from_pretrained\('org/x', .*dequantize=True"),
        ("mxfp4", r"Mxfp4Config as Q; .*dequantize=True"),
        ("compressed-tensors", r"CompressedTensorsConfig as Q; .*dequantize=True"),
        ("bitsandbytes", r"the package of bitsandbytes: .*\.dequantize\(\)\.save_pretrained"),
        ("gptq", "with the tools of gptq; transformers itself does not"),
    ],
)
def test_quantised_checkpoints_are_refused_with_the_way_to_undo_it(method: str, told: str):
    config = {"text_config": {"quantization_config": {"quant_method": method}}}
    with pytest.raises(ModelError, match=f"neither trained nor run frozen.*{told}"):
        refuse_quantised("language", config, "org/x")


def test_what_undoes_quantisation_is_in_transformers():
    for name in _UNDONE.values():
        assert "dequantize" in signature(getattr(transformers, name)).parameters


def written(name: str, **changes: Any) -> Callable[[Path], None]:
    """Damage that leaves the file JSON, with other things in it."""

    def damage(folder: Path) -> None:
        held = json.loads((folder / name).read_text()) if changes else {}
        (folder / name).write_text(json.dumps({**held, **changes}))

    return damage


NO_TOKENIZER = {
    "nothing": written("tokenizer.json"),
    "no model": written("tokenizer.json", model=None),
    "another model": written("tokenizer.json", model={"type": "Foo"}),
    "a number for a class": written("tokenizer_config.json", tokenizer_class=5),
    "a number for a token": written("tokenizer_config.json", eos_token=5),
}


@pytest.mark.parametrize("kind", NO_TOKENIZER)
def test_files_that_are_no_tokenizer(parts: Parts, tmp_path: Path, kind: str):
    shutil.copytree(parts.config().language, tmp_path / "copy")
    NO_TOKENIZER[kind](tmp_path / "copy")
    asked = parts.config().model_copy(update={"language": str(tmp_path / "copy")})
    for make in (partial(build, weights="meta"), partial(build, seed=0)):
        with pytest.raises(ModelError, match="cannot load the tokenizer of the language from the"):
            make(asked)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read the preprocessor_config.json .*download it again"),
        ('{"size": "big", "image_mean": 0.5, "image_std": 0.5}', "gives size 'big'"),
        ('{"size": 64, "image_mean": {"r": 1}, "image_std": 0.5}', "image_mean {'r': 1}"),
        ('{"size": 64, "image_mean": ["a", "b", "c"], "image_std": 0.5}', "image_mean .'a', 'b'"),
    ],
)
def test_a_damaged_preprocessor_config_is_not_called_missing(
    parts: Parts, tmp_path: Path, text: str, message: str
):
    shutil.copytree(parts.config().tower, tmp_path / "copy")
    (tmp_path / "copy/preprocessor_config.json").write_text(text)
    asked = parts.config().model_copy(update={"tower": str(tmp_path / "copy")})
    with pytest.raises(ModelError, match=message):
        build(asked, weights="meta")


def test_weights_that_cannot_be_read_are_told_with_the_reason(tmp_path: Path):
    # A folder stands for a file of another account's: tests may run as root, who reads all.
    (tmp_path / "model.safetensors").mkdir()
    found = safetensors_problem(tmp_path / "model.safetensors")
    assert found is not None
    assert found.startswith("model.safetensors cannot be read (Is a directory)")
