"""Multimodal folders of transformers' own classes become parts that compute what the class does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_tokenizers import CHATML, byte_tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AyaVisionConfig,
    InternVLConfig,
    Lfm2VlConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaOnevisionConfig,
    PreTrainedModel,
    VipLlavaConfig,
)
from transformers.models.aya_vision.modeling_aya_vision import AyaVisionMultiModalProjector

from sailvit.core.recipe import ModelConfig
from sailvit.interop.parts import MODEL, take_parts
from sailvit.models.loading.build import ModelBundle, build
from tiny_parts import PREPROCESSOR, TOWERS, VOCABULARY

SIDE = 32
IMAGE = "<image>"
NEAR = 1e-5
"""Worst seen: 1.6e-6."""
TEXT = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": VOCABULARY,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
COHERE = {
    **TEXT,
    "model_type": "cohere2",
    "logit_scale": 0.25,
    "sliding_window": 64,
    "layer_types": ["sliding_attention", "full_attention"],
}
LFM2 = {**TEXT, "model_type": "lfm2", "layer_types": ["conv", "full_attention"]}


def halves(tower: str, text: dict[str, Any] = TEXT) -> dict[str, Any]:
    vision = TOWERS[tower].to_dict()
    vision.pop("vision_use_head", None)
    return {"vision_config": vision, "text_config": text, "initializer_range": 0.2}


def image_id() -> int:
    return len(byte_tokenizer())


CONFIGS = {
    "llava-clip": lambda: LlavaConfig(
        **halves("clip"), vision_feature_layer=-2, image_token_id=image_id()
    ),
    "llava-siglip": lambda: LlavaConfig(
        **halves("siglip"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_token_id=image_id(),
    ),
    "llava-layers": lambda: LlavaConfig(
        **halves("clip"), vision_feature_layer=[-2, 0, -1], image_token_id=image_id()
    ),
    "vipllava": lambda: VipLlavaConfig(
        **halves("clip"), vision_feature_layer=[-1, -2, 1], image_token_index=image_id()
    ),
    "llava_next": lambda: LlavaNextConfig(
        **halves("clip"),
        vision_feature_layer=-2,
        image_token_id=image_id(),
        image_grid_pinpoints=[[SIDE, SIDE]],
    ),
    "llava_onevision": lambda: LlavaOnevisionConfig(
        **halves("siglip"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_token_id=image_id(),
        image_grid_pinpoints=[[SIDE, SIDE]],
    ),
    "internvl": lambda: InternVLConfig(
        **halves("internvl"), image_token_id=image_id(), tie_word_embeddings=False
    ),
    "aya": lambda: AyaVisionConfig(
        **halves("siglip", COHERE),
        image_token_id=image_id(),
        vision_feature_select_strategy="full",
        downsample_factor=2,
        alignment_intermediate_size=56,
    ),
    "lfm2": lambda: Lfm2VlConfig(
        **halves("siglip2", LFM2),
        image_token_id=image_id(),
        downsample_factor=2,
        projector_hidden_size=40,
        projector_use_layernorm=True,
    ),
    "lfm2-plain": lambda: Lfm2VlConfig(
        **halves("siglip2", LFM2),
        image_token_id=image_id(),
        downsample_factor=2,
        projector_hidden_size=40,
        projector_use_layernorm=False,
    ),
}


BETWEEN = {"llava_next": (-2, 1), "llava_onevision": (-1, 0)}
"""Classes with tokens of their own between visual ones: the layer that they read, and the tokens
before its patches.
"""


def write_native(folder: Path, given: str | PreTrainedModel) -> PreTrainedModel:
    """A folder as the class saves it, with a tokenizer and an image processor's config."""
    torch.manual_seed(4)
    model = given
    if isinstance(given, str):
        model = AutoModelForImageTextToText.from_config(CONFIGS[given]()).eval()
    torch.nn.init.normal_(model.model.multi_modal_projector.linear_1.weight, std=0.2)
    model.save_pretrained(folder)
    tokenizer = byte_tokenizer(CHATML)
    tokenizer.add_tokens([IMAGE, "<img>", "</img>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": PREPROCESSOR}))
    return model


@pytest.mark.parametrize("processor", ["InternVLProcessor", "LlavaProcessor"])
def test_tokens_stand_around_images_where_the_processor_writes_them(processor: str, tmp_path: Path):
    write_native(tmp_path / "in", "internvl")
    said = {"processor_class": processor, "image_processor": PREPROCESSOR}
    (tmp_path / "in" / "processor_config.json").write_text(json.dumps(said))
    take_parts(str(tmp_path / "in"), tmp_path / "out")
    image = yaml.safe_load((tmp_path / "out" / MODEL).read_text())["model"]["image"]
    assert image.get("wrap") == (["<img>", "</img>"] if processor.startswith("Intern") else None)


def loaded(out: Path) -> ModelBundle:
    given = yaml.safe_load((out / MODEL).read_text(encoding="utf-8"))["model"]
    return build(ModelConfig.model_validate(given), seed=0)


def inputs_of(model: PreTrainedModel, bundle: ModelBundle, tiles: torch.Tensor) -> dict[str, Any]:
    """Pixels as the class takes them, normalised here."""
    given = bundle.mllm.tower.inputs(tiles)
    if model.config.model_type == "lfm2_vl":
        count = given["pixel_values"].shape[1]
        given["pixel_attention_mask"] = torch.ones(len(tiles), count, dtype=torch.long)
    return given


@pytest.mark.parametrize("name", CONFIGS)
def test_parts_compute_what_the_class_does(tmp_path: Path, name: str):
    assert worst(tmp_path, name) < NEAR


@torch.no_grad()
def worst(folder: Path, name: str) -> float:
    """The worst error of visual tokens and scores, as a share of the largest value; greedy
    continuations must be equal.
    """
    model = write_native(folder / "model", name)
    taken = take_parts(str(folder / "model"), folder / "parts")
    assert not taken.refused
    bundle = loaded(folder / "parts")
    mllm = bundle.mllm.eval()
    tiles = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    given = inputs_of(model, bundle, tiles)
    found = mllm.visual(tiles)
    if name in BETWEEN:
        # Its class puts its own token into each row; the connector alone is compared.
        hidden = model.model.vision_tower(given["pixel_values"], output_hidden_states=True)
        assert taken.left_out == ("image_newline",)
        layer, first = BETWEEN[name]
        read = hidden.hidden_states[layer][:, first:]
        return apart(found, model.model.multi_modal_projector(read))
    assert not taken.left_out
    pooled = model.model.get_image_features(**given, **selection(model)).pooler_output
    tokens = torch.tensor([5, 6, *[image_id()] * 2 * found.shape[1], 7, 8, 9])
    assert bundle.layout.placeholder_id == image_id()
    language = AutoModelForCausalLM.from_pretrained(folder / "parts/language")
    embedded = mllm.embed(tokens, found)[None]
    scores = model(input_ids=tokens[None], **given).logits
    mask = torch.ones(1, len(tokens), dtype=torch.long)
    settings = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False}
    answer = language.generate(inputs_embeds=embedded, **settings)
    whole = model.generate(input_ids=tokens[None], **given, **settings)
    assert answer[0].tolist() == whole[0, len(tokens) :].tolist()
    return max(
        apart(found, torch.stack(list(pooled))),
        apart(language(inputs_embeds=embedded).logits, scores),
    )


def selection(model: PreTrainedModel) -> dict[str, Any]:
    if model.config.model_type == "lfm2_vl":
        return {}
    names = ("vision_feature_layer", "vision_feature_select_strategy")
    return {name: getattr(model.config, name) for name in names if hasattr(model.config, name)}


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def test_a_connector_that_the_class_computes_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As a later version of transformers might: gates and values the other way round."""
    write_native(tmp_path / "model", "aya")

    def swapped(projector: Any, features: torch.Tensor) -> torch.Tensor:
        merged = projector.layernorm(projector.pixel_shuffle(features))
        gate, values = projector.linear_1(merged).chunk(2, dim=-1)
        return projector.linear_2(projector.act(gate) * values)

    monkeypatch.setattr(AyaVisionMultiModalProjector, "forward", swapped)
    taken = take_parts(str(tmp_path / "model"), tmp_path / "parts")
    assert "transformers' class gives other visual tokens" in taken.refused["connector"]
    assert sorted(taken.folders) == ["language", "tower"]
    assert not (tmp_path / "parts/model.json").exists()
