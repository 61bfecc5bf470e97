"""transformers' own classes hold what fits them exactly, and say what does not fit and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import loader, written
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer, InternVLProcessor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from sailvit.core.errors import ModelError
from sailvit.core.recipe import ConnectorConfig, ImageConfig
from sailvit.data.processing.images import tile_count
from sailvit.interop.export import native
from sailvit.interop.export.native import NATIVES, problems, write_native
from tiny_parts import SIDE, Parts, picture

MLP = ConnectorConfig(kind="mlp")
WRAP = {"wrap": ("<img>", "</img>")}
FITS: dict[str, tuple[str, dict[str, Any]]] = {
    "llava, SigLIP": ("llava", {"connector": MLP}),
    "llava, an earlier layer": ("llava", {"tower": "clip", "connector": MLP, "feature_layer": -2}),
    "llava, several layers": (
        "llava",
        {"tower": "clip", "connector": MLP, "feature_layer": (1, -1)},
    ),
    "llava, before the norm": (
        "llava",
        {"tower": "dinov2", "connector": MLP, "feature_norm": False},
    ),
    "llava, AIMv2": ("llava", {"tower": "aimv2", "language": "gemma3", "connector": MLP}),
    "llava, wrapped": (
        "llava",
        {"tower": "vit", "connector": MLP, "image": ImageConfig(newline=True, **WRAP)},
    ),
    "internvl": ("internvl", {"tower": "internvl", "language": "qwen2"}),
    "internvl, wrapped": ("internvl", {"tower": "internvl", "image": ImageConfig(**WRAP)}),
    "aya_vision, SigLIP": ("aya_vision", {"connector": ConnectorConfig(kind="swiglu")}),
    "aya_vision, AIMv2": (
        "aya_vision",
        {
            "tower": "aimv2",
            "language": "qwen3",
            "connector": ConnectorConfig(kind="swiglu", hidden=24),
        },
    ),
    "vip_llava": ("vip_llava", {"tower": "clip", "connector": ConnectorConfig(merge=1)}),
}


@pytest.mark.parametrize("name", FITS)
def test_it_answers_as_in_memory(name: str, parts: Parts, tmp_path: Path):
    layout, settings = FITS[name]
    parity = written(loader(parts, **settings), layout, tmp_path / "out")
    errors = {what: error for what, error in parity.worst.items() if what != "pixels"}
    assert max(errors.values()) < 1e-5
    assert parity.tokens > 150
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert config.architectures == [NATIVES[layout].cls]
    assert not list((tmp_path / "out").glob("*.py"))


MISFITS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "connector": ("llava", {}, ["train with model.connector.kind: mlp", "connector.merge: 1"]),
    "width": (
        "internvl",
        {"tower": "internvl", "connector": ConnectorConfig(hidden=48)},
        ["train with model.connector.hidden: 32"],
    ),
    "tower": ("internvl", {"tower": "clip"}, ["the tower is a clip_vision_model"]),
    "registers": (
        "aya_vision",
        {"tower": "registers", "connector": ConnectorConfig(kind="swiglu")},
        ["4 tokens before its patches"],
    ),
    "patches": (
        "aya_vision",
        {"tower": "siglip2", "connector": ConnectorConfig(kind="swiglu")},
        ["the tower takes flattened patches"],
    ),
    "no class token": (
        "vip_llava",
        {"connector": ConnectorConfig(merge=1)},
        ["choose a tower with one, such as CLIP"],
    ),
    "tiles": (
        "llava",
        {"connector": MLP, "image": ImageConfig(max_tiles=4)},
        ["train with model.image.max_tiles: 1"],
    ),
    "two layers": (
        "aya_vision",
        {"tower": "clip", "connector": ConnectorConfig(kind="swiglu"), "feature_layer": (1, 2)},
        ["train with one model.feature_layer"],
    ),
    "final norm": (
        "llava",
        {"tower": "dinov2", "connector": MLP},
        ["after the final norm", "model.feature_norm: false"],
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_says_what_would(name: str, parts: Parts, tmp_path: Path):
    layout, settings, said = MISFITS[name]
    with pytest.raises(ModelError) as error:
        written(loader(parts, **settings), layout, tmp_path / "out")
    for text in said:
        assert text in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_scaled_scores_do_not_fit(parts: Parts):
    mllm = parts.build(connector=MLP).mllm
    mllm.plain_head = False
    layout = parts.build(connector=MLP).layout
    assert any("scales or caps" in text for text in problems(NATIVES["llava"], mllm, layout))


def test_files_have_the_names_that_transformers_saves(parts: Parts, tmp_path: Path):
    written(loader(parts, connector=MLP), "llava", tmp_path / "out")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype=torch.float32)
    model.save_pretrained(tmp_path / "again")
    ours = load_file(tmp_path / "out" / "model.safetensors")
    theirs = load_file(tmp_path / "again" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("layout", ["hf", "llava"])
def test_a_tokenizer_that_begins_texts_by_itself_does_not_begin_prompts(
    layout: str, parts: Parts, tmp_path: Path
):
    """Training's prompts have the chat template's special tokens alone."""

    def begin(bundle: Any) -> None:
        tokenizer = bundle.tokenizer
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|bos|> $A", special_tokens=[("<|bos|>", tokenizer.bos_token_id)]
        )
        assert tokenizer("a").input_ids[0] == tokenizer.bos_token_id

    written(loader(parts, connector=MLP, change=begin), layout, tmp_path / "out")


def test_tied_embeddings(parts: Parts, tmp_path: Path):
    def tie(bundle: Any) -> None:
        language = bundle.mllm.language
        language.config.tie_word_embeddings = True
        language.lm_head.weight = language.get_input_embeddings().weight

    load = loader(parts, tower="internvl", change=tie)
    assert written(load, "internvl", tmp_path / "out").worst["logits"] < 1e-5
    assert not [n for n in load_file(tmp_path / "out" / "model.safetensors") if "lm_head" in n]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["tie_word_embeddings"]
    assert config["text_config"]["tie_word_embeddings"]


def test_internvl_s_own_processor_cuts_training_s_tiles(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It loads only beside torchvision; here its parts are put together by hand."""
    monkeypatch.setattr(native, "is_torchvision_available", lambda: True)
    image = ImageConfig(max_tiles=6, **WRAP)
    trained = loader(parts, tower="internvl", image=image)()
    write_native(NATIVES["internvl"], "internvl", trained, tmp_path)
    images = GotOcr2ImageProcessorPil.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for name, token in (("start", "<img>"), ("end", "</img>"), ("context", "<|image_pad|>")):
        assert getattr(tokenizer, f"{name}_image_token") == token
    monkeypatch.setattr(InternVLProcessor, "check_argument_for_proper_class", lambda *_: None)
    said = json.loads((tmp_path / "processor_config.json").read_text())
    processor = InternVLProcessor(
        images, tokenizer, None, image_seq_length=said["image_seq_length"]
    )
    template = tokenizer.chat_template
    for number, (width, height) in enumerate(((32, 32), (100, 30), (64, 64), (31, 90), (7, 300))):
        shown = picture(number, width, height)
        pieces = [{"type": "image", "image": shown}, {"type": "text", "text": "what is red?"}]
        messages = [{"role": "user", "content": pieces}]
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, chat_template=template
        )
        given = processor(images=shown, text=text, return_tensors="pt")
        expected = trained.model.processor(messages)
        assert given["input_ids"].tolist() == expected["input_ids"].tolist()
        layout = trained.bundle.layout
        assert len(given["pixel_values"]) == tile_count(shown, layout)
        assert images.get_number_of_image_patches(height, width) == tile_count(shown, layout)
    assert said["image_seq_length"] * 8 == SIDE
