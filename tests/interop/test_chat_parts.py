"""SAIL-VL and InternVL checkpoints become parts that compute what their own code does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from written_chat import SIDE, Written, write_chat

from sailvit.api.models import load_run
from sailvit.core.errors import ModelError
from sailvit.core.recipe import ModelConfig
from sailvit.core.records import Record, Turn
from sailvit.data.processing.processor import Processor
from sailvit.interop.parts import MODEL, take_parts
from sailvit.models.loading.build import ModelBundle, build
from tiny_parts import picture

SAIL = (
    "你是由抖音内容理解组开发的多模态大模型,英文名叫UniVL, 是一个有用无害的人工智能助手。".replace(
        ",", "\uff0c", 1
    )
)
NEAR = 1e-5
"""Worst seen: 2.1e-6, of logits."""
QUESTION = "what is left of it?"


def bundle_config(out: Path, **image: str) -> ModelConfig:
    """The model of a folder of parts, with other settings of images where given."""
    given = yaml.safe_load((out / MODEL).read_text(encoding="utf-8"))["model"]
    return ModelConfig.model_validate({**given, "image": image or given["image"]})


def loaded(out: Path) -> ModelBundle:
    return build(bundle_config(out), seed=0)


def prompt_of(bundle: ModelBundle, *images) -> tuple[list[int], torch.Tensor]:
    marks = "<image>\n" * len(images)
    record = Record("r", (Turn("user", marks + QUESTION),), images)
    made = Processor(bundle.tokenizer, bundle.layout, 1 << 20).prompt("t", record)
    return made.tokens.tolist(), made.tiles


def text_of(tiles: list[int], system: str = SAIL, between: str = "") -> str:
    """What `chat()` writes: the system turn, `<img>` runs and the question."""
    images = "".join(f"<img>{'<IMG_CONTEXT>' * 4 * count}</img>\n" for count in tiles)
    return (
        f"<|im_start|>system\n{system}<|im_end|>{between}"
        f"<|im_start|>user\n{images}{QUESTION}<|im_end|>{between}<|im_start|>assistant\n"
    )


@torch.no_grad()
def compare(written: Written, out: Path, prompt: str) -> float:
    """The worst error of features, visual tokens and logits, as a share of the largest value;
    tokens and continuation must be equal.
    """
    bundle = loaded(out)
    ids, tiles = prompt_of(bundle, picture(1, 2 * SIDE, SIDE), picture(2))
    assert tiles.shape[0] == 4
    assert ids == written.tokenizer(prompt, add_special_tokens=False).input_ids
    model = bundle.mllm.eval()
    pairs = [
        (model.tower(tiles), written.features(tiles)),
        (model.visual(tiles), written.visual(tiles)),
    ]
    language = AutoModelForCausalLM.from_pretrained(out / "language", dtype=torch.float32)
    embedded = model.embed(torch.tensor(ids), model.visual(tiles))[None]
    pairs.append((language(inputs_embeds=embedded).logits[0], written.logits(ids, tiles)))
    mask = torch.ones(embedded.shape[:2], dtype=torch.long)
    text = language.generate(
        inputs_embeds=embedded, attention_mask=mask, max_new_tokens=6, do_sample=False
    )
    assert text[0].tolist() == written.continuation(ids, tiles, 6)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


CASES = [
    ("aimv2", "qwen3", "v2", False),
    ("aimv2", "qwen2", "v1", False),
    ("internvit", "qwen2", "v2", True),
    ("internvit", "llama", "v1", False),
    ("internvit-6b", "qwen3", "v2", False),
]
"""Tower, language, ps_version, and whether the head is tied."""


@pytest.mark.parametrize(("tower", "language", "version", "tie"), CASES)
def test_parts_compute_what_the_model_does(
    tmp_path: Path, tower: str, language: str, version: str, tie: bool
):
    assert worst(tmp_path, tower, language, version, tie=tie) < NEAR


def worst(folder: Path, tower: str, language: str, version: str, *, tie: bool) -> float:
    """The worst error of a model's parts."""
    written = write_chat(
        folder / "model", tower=tower, language=language, tie=tie, ps_version=version
    )
    taken = take_parts(str(written.folder), folder / "parts")
    assert (taken.refused, taken.left_out, taken.notes) == ({}, (), ())
    return compare(written, folder / "parts", text_of([3, 1]))


def test_the_folder_answers_as_the_models_own_chat_does(tmp_path: Path):
    written = write_chat(tmp_path / "model", ps_version="v1")
    take_parts(str(written.folder), tmp_path / "parts")
    image = picture(3, 3 * SIDE, SIDE)
    answer = load_run(tmp_path / "parts").generate(image, QUESTION, max_new_tokens=8)
    bundle = loaded(tmp_path / "parts")
    ids, tiles = prompt_of(bundle, image)
    assert ids == written.tokenizer(text_of([4]), add_special_tokens=False).input_ids
    expected = written.tokenizer.decode(written.continuation(ids, tiles, 8))
    assert answer == expected.partition("<|im_end|>")[0].strip()
    with pytest.raises(ModelError, match="column by column"):
        build(bundle_config(tmp_path / "parts", mode="native"), seed=0)


def test_internvl_writes_line_breaks_between_turns(tmp_path: Path):
    written = write_chat(
        tmp_path / "model",
        tower="internvit",
        model_type="sailvl",
        template="internvl2_5",
        system_message="Be brief.",
    )
    take_parts(str(written.folder), tmp_path / "parts")
    text = text_of([3, 1], "Be brief.", "\n")
    assert compare(written, tmp_path / "parts", text) < NEAR


@pytest.mark.parametrize("tower", ["internvit", "internvit-6b"])
def test_the_tensors_tell_what_an_internvits_config_leaves_out(tmp_path: Path, tower: str):
    """InternViT's own class and transformers' have other defaults, of the image's size too."""
    write_chat(tmp_path / "model", tower=tower)
    path = tmp_path / "model/config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    take_parts(str(tmp_path / "model"), tmp_path / "told")
    kept = ("model_type", "num_attention_heads")
    config["vision_config"] = {name: config["vision_config"][name] for name in kept}
    del config["force_image_size"]
    path.write_text(json.dumps(config), encoding="utf-8")
    taken = take_parts(str(tmp_path / "model"), tmp_path / "measured")
    assert not taken.refused
    for name in ("tower/config.json", "tower/preprocessor_config.json", "connector/config.json"):
        told, measured = ((tmp_path / kind / name).read_text() for kind in ("told", "measured"))
        assert measured == told, name
    assert (
        json.loads((tmp_path / "measured/tower/config.json").read_text())["image_size"]
        == [SIDE] * 2
    )


def test_positions_that_are_no_square_are_refused(tmp_path: Path):
    write_chat(tmp_path / "model", tower="internvit")
    path = tmp_path / "model/model.safetensors"
    weights = load_file(path)
    table = "vision_model.embeddings.position_embedding"
    weights[table] = weights[table][:, :-1].clone()
    save_file(weights, path)
    with pytest.raises(
        ModelError, match="has 15 positions besides its class token; expected a square"
    ):
        take_parts(str(tmp_path / "model"), tmp_path / "parts")
