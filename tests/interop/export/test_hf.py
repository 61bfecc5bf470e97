"""The `hf` layout: any tower and language load by stock transformers and answer as in memory."""

from __future__ import annotations

import base64
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported import loader, run_card, written
from PIL import Image
from safetensors.torch import load_file
from tiny_languages import language_of
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from sailvit.core.errors import ModelError
from sailvit.core.recipe import ConnectorConfig, ImageConfig
from sailvit.data.processing.images import load_image, tile_grid, tile_image
from sailvit.interop.export.export import export
from sailvit.interop.export.gate import reload_fresh
from sailvit.interop.export.hf import CODE
from sailvit.interop.export.texts import generation
from sailvit.models.structure.packing_choice import choose_way
from tiny_parts import SIDE, Parts, picture

WRAP = {"wrap": ("<img>", "</img>"), "newline": True}
MODELS: dict[str, dict[str, Any]] = {
    "tiles": {"image": ImageConfig(max_tiles=4)},
    "wrapped": {"image": ImageConfig(max_tiles=4, **WRAP)},
    "patches": {"tower": "siglip2", "language": "qwen3"},
    "registers": {"tower": "registers", "connector": ConnectorConfig(kind="swiglu")},
    "aimv2": {"tower": "aimv2", "language": "gemma3", "feature_layer": -2},
    "clip": {"tower": "clip", "language": "smollm3", "connector": ConnectorConfig(kind="mlp")},
    "vit": {"tower": "vit", "connector": ConnectorConfig(kind="norm_merge_mlp")},
    "internvl": {"tower": "internvl", "language": "qwen2"},
    "scaled embeddings": {"language": "gemma", "connector": ConnectorConfig(hidden=24)},
    "interpolated": {"tower": "vit", "image": ImageConfig(size=SIDE * 2)},
    "layers behind the norm": {
        "tower": "registers",
        "feature_layer": (-2, 1),
        "feature_norm": True,
        "feature_join": "mean",
    },
    "last layers behind the norm": {
        "tower": "aimv2",
        "feature_layer": (0, -1),
        "feature_norm": True,
    },
    "one crop, no thumbnail": {"image": ImageConfig(max_tiles=3, thumbnail=False)},
}


def load(folder: Path) -> tuple[Any, Any]:
    model = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=True
    )
    return model.eval(), AutoProcessor.from_pretrained(folder, trust_remote_code=True)


@pytest.fixture(scope="module")
def tiled(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "tiled"
    image = ImageConfig(max_tiles=4, **WRAP)
    written(loader(parts, "aimv2", "qwen3", image=image), "hf", out)
    return out


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_part_answers_as_in_memory(name: str, parts: Parts, tmp_path: Path):
    parity = written(loader(parts, **MODELS[name]), "hf", tmp_path / "out")
    assert max(parity.worst.values()) < 1e-5
    assert set(parity.worst) == {"pixels", "features", "visual", "logits"}
    # Three prompts and answers, and the answers once more in a batch.
    assert parity.tokens > 150


NATIVE = ImageConfig(mode="native", min_patches=8, max_patches=80)
NATIVES: dict[str, dict[str, Any]] = {
    "told to interpolate": {"tower": "siglip"},
    "patches": {"tower": "siglip2", "language": "qwen3"},
    "its table resized": {"tower": "aimv2", "language": "qwen3"},
    "class token and registers": {
        "tower": "registers",
        "connector": ConnectorConfig(kind="swiglu"),
    },
    "no merging": {"tower": "vit", "connector": ConnectorConfig(kind="mlp")},
    "an early layer": {"tower": "registers", "feature_layer": -2, "feature_norm": True},
}


@pytest.mark.parametrize("name", NATIVES)
def test_native_resolution_answers_as_in_memory(name: str, parts: Parts, tmp_path: Path):
    """One image, and two of other grids; wrapped, and in one batch."""
    image = NATIVE.model_copy(update=WRAP)
    parity = written(loader(parts, **NATIVES[name], image=image), "hf", tmp_path / "out")
    assert max(parity.worst.values()) < 1e-5
    assert set(parity.worst) == {"pixels", "features", "visual", "logits"}
    assert parity.tokens > 150


def test_grids_are_those_of_training(parts: Parts, tmp_path: Path):
    """Also of strips, of the smallest and the largest images; engines ask for the numbers."""
    load_model = loader(parts, image=NATIVE)
    written(load_model, "hf", tmp_path / "out")
    model, processor = load(tmp_path / "out")
    layout = load_model().bundle.layout
    for width, height in ((7, 5), (16, 16), (33, 47), (500, 9), (9, 4000), (300, 200)):
        pixels = picture(3, width, height)
        made = processor.image_processor(Image.fromarray(pixels))
        [[rows, columns]] = made["image_grids"].tolist()
        assert (columns, rows) == tile_grid(width, height, layout)
        cells = tile_image(pixels, layout)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25)))
        torch.testing.assert_close(made["pixel_values"], (cells / 255 - mean) / std)
        counted = processor._get_num_multimodal_tokens([(height, width)])
        assert counted["num_image_tokens"] == [rows * columns]
    shown = processor.image_processor([picture(1, 40, 30), picture(2, 20, 60)])
    answer = model.chat(
        processor.tokenizer,
        shown["pixel_values"],
        "<image> or <image>?",
        {"max_new_tokens": 4},
        num_patches_list=shown["num_patches"].tolist(),
        image_grids=shown["image_grids"],
    )
    assert isinstance(answer, str)
    with pytest.raises(ValueError, match="expected those that the processor gives"):
        model.get_image_features(shown["pixel_values"])
    with pytest.raises(ValueError, match=r"the image grids have \d+ tiles"):
        model.get_image_features(shown["pixel_values"], image_grids=shown["image_grids"][:1])


def test_a_fresh_process_needs_no_sailvit(parts: Parts, tmp_path: Path):
    out = tmp_path / "out"
    parity = export(loader(parts, "aimv2", "qwen3"), "hf", out, reload=reload_fresh)
    assert max(parity.worst.values()) < 1e-5
    told = json.loads((out / "parity.json").read_text())
    assert told["worst"] == dict(parity.worst)
    assert told["layout"] == "hf"


def test_the_card_has_an_example_that_runs(tiled: Path, tmp_path: Path):
    text = (tiled / "README.md").read_text()
    run_card(tiled, tmp_path, 70, 40)
    head = text.split("---\n")[1]
    for line in (
        "pipeline_tag: image-text-to-text",
        "- apple/aimv2-large-patch14-224",
        "- Qwen/Qwen3-0.6B",
        "license: other",
    ):
        assert line in head


def test_code_is_ours_and_hashed(tiled: Path):
    lineage = json.loads((tiled / "lineage.json").read_text())
    assert sorted(lineage["code"]) == sorted(CODE)
    for name in CODE:
        assert "sailvit." not in "".join(
            line for line in (tiled / name).read_text().splitlines() if "import" in line
        )


def test_visual_tokens_that_go_column_by_column(parts: Parts, tmp_path: Path):
    def turn(bundle: Any) -> None:
        bundle.mllm.connector.config.column_major = True

    load = loader(parts, change=turn)
    assert written(load, "hf", tmp_path / "out").worst["visual"] < 1e-5
    with pytest.raises(ModelError, match="column by column"):
        written(load, "vip_llava", tmp_path / "other")


def test_tied_embeddings_are_written_once_and_loaded_tied(parts: Parts, tmp_path: Path):
    def tie(bundle: Any) -> None:
        language = bundle.mllm.language
        language.config.tie_word_embeddings = True
        language.lm_head.weight = language.get_input_embeddings().weight

    written(loader(parts, change=tie), "hf", tmp_path / "out")
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")
    model, _ = load(tmp_path / "out")
    assert model.lm_head.weight is model.get_input_embeddings().weight
    model.save_pretrained(tmp_path / "again")
    again, _ = load(tmp_path / "out")
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)


def test_half_precision_is_written_and_compared(parts: Parts, tmp_path: Path):
    parity = written(loader(parts, dtype=torch.bfloat16), "hf", tmp_path / "out")
    assert parity.worst["logits"] < 1e-5
    state = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
    config = AutoConfig.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert config.dtype == torch.bfloat16
    assert config.text_config.dtype == torch.bfloat16


def test_generation_config_has_the_tokens_that_end_answers(parts: Parts, tmp_path: Path):
    def settings(bundle: Any) -> None:
        bundle.mllm.language.generation_config = GenerationConfig(
            do_sample=True, temperature=0.6, top_p=0.9, eos_token_id=7
        )

    written(loader(parts, change=settings), "hf", tmp_path / "out")
    found = GenerationConfig.from_pretrained(tmp_path / "out")
    assert (found.temperature, found.top_p) == (0.6, 0.9)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert {7, tokenizer.eos_token_id} <= set(found.eos_token_id)
    assert found.pad_token_id == tokenizer.pad_token_id


def test_settings_that_its_way_of_generating_does_not_use_are_left_out(
    parts: Parts, tmp_path: Path
):
    """Vicuna's and older Llama's hold a temperature beside greedy decoding."""
    model = loader(parts)().model
    own = GenerationConfig(
        temperature=0.9, top_p=0.6, top_k=7, length_penalty=0.5, repetition_penalty=1.1
    )
    model.language.generation_config = own
    generation(model).save_pretrained(tmp_path)
    found = GenerationConfig.from_pretrained(tmp_path).to_diff_dict()
    assert not found.keys() & {"temperature", "top_p", "top_k", "length_penalty"}
    assert found["repetition_penalty"] == 1.1
    assert own.temperature == 0.9


def test_answers_end_at_the_model_s_ends_with_a_generation_config_of_the_caller(tiled: Path):
    model, processor = load(tiled)
    given = processor(text="What is red?", return_tensors="pt")
    start, plain = given["input_ids"].shape[1], {"max_new_tokens": 8, "do_sample": False}
    free = model.generate(**given, **plain)[0, start:].tolist()
    model.generation_config.eos_token_id = [free[2]]
    made = model.generate(**given, generation_config=GenerationConfig(**plain))
    assert made[0, start:].tolist() == free[: free.index(free[2]) + 1]


def test_a_language_that_caps_its_scores_keeps_doing_so(parts: Parts, tmp_path: Path):
    def cap(bundle: Any) -> None:
        bundle.mllm.language = language_of("gemma2")
        bundle.mllm.language.config.final_logit_softcapping = 0.5
        bundle.mllm.plain_head = False
        choose_way(bundle.mllm, "auto")

    parity = written(loader(parts, change=cap), "hf", tmp_path / "out")
    assert parity.worst["logits"] < 1e-5
    model, _ = load(tmp_path / "out")
    assert model(torch.tensor([[3, 4, 5]])).logits.abs().max() <= 0.5


def test_chat_answers_as_internvl_kits_ask(tiled: Path):
    """`.chat(tokenizer, pixel_values, question, generation_config, num_patches_list)`."""
    model, processor = load(tiled)
    tokenizer = AutoTokenizer.from_pretrained(tiled)
    images = [Image.fromarray(picture(1, 90, 30)), Image.fromarray(picture(2))]
    pieces = [{"type": "image", "image": image} for image in images]
    messages = [{"role": "user", "content": [*pieces, {"type": "text", "text": "What is red?"}]}]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    made = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    expected = processor.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    answer, history = model.chat(
        tokenizer,
        inputs["pixel_values"],
        "<image>\n<image>\nWhat is red?",
        {"max_new_tokens": 6, "do_sample": False},
        num_patches_list=[4, 1],
        return_history=True,
    )
    assert answer == expected.strip()
    assert history == [("<image>\n<image>\nWhat is red?", answer)]
    follow = model.chat(tokenizer, None, "And blue?", {"max_new_tokens": 3})
    assert isinstance(follow, str)
    assert model.num_image_token == 4
    assert model.config.vision_config.image_size == SIDE


def test_images_become_training_s_pixels(tiled: Path, parts: Parts):
    processor = AutoImageProcessor.from_pretrained(tiled, trust_remote_code=True)
    bundle = parts.build("aimv2", "qwen3", image=ImageConfig(max_tiles=4, **WRAP))
    tower = bundle.mllm.tower
    turned = io.BytesIO()
    photo = Image.fromarray(picture(3, 60, 35))
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(turned, format="PNG", exif=exif)
    glass = io.BytesIO()
    Image.fromarray(np.dstack([picture(4, 50, 41), picture(5, 50, 41)[..., :1]])).save(
        glass, format="PNG"
    )
    grey, deep = io.BytesIO(), io.BytesIO()
    Image.fromarray(picture(6, 20, 77)[..., 0]).save(grey, format="PNG")
    Image.fromarray(picture(6, 20, 77)[..., 0].astype(np.uint16) * 251).save(deep, format="TIFF")
    for file in (turned, glass, grey, deep):
        tiles = tile_image(load_image(file.getvalue()), bundle.layout)
        text = base64.b64encode(file.getvalue()).decode()
        for given in (Image.open(file), text, f"data:image/png;base64,{text}"):
            found = processor(given)
            assert torch.equal(found["pixel_values"], tower.normalised(tiles))
    with pytest.raises(ValueError, match="float pixels, whose range is unknown"):
        processor(Image.fromarray(np.zeros((8, 8), np.float32)))
    with pytest.raises(ValueError, match=r"found 'no\.png'; expected an image's path"):
        processor("no.png")
    for width, height in ((1, 1), (30, 300), (300, 30), (64, 64), (97, 61), (5, 1000)):
        image = picture(7, width, height)
        tiles = tile_image(image, bundle.layout)
        found = processor(image)
        assert found["num_patches"].tolist() == [len(tiles)]
        assert processor.get_number_of_image_patches(height, width) == len(tiles)
        assert torch.equal(found["pixel_values"], tower.normalised(tiles))


def test_what_vllm_asks_of_transformers_models(tiled: Path):
    """The contract of vLLM's Transformers backend for image models."""
    config = AutoConfig.from_pretrained(tiled, trust_remote_code=True)
    assert "AutoModel" in config.auto_map
    with torch.device("meta"):
        base = AutoModel.from_config(config, trust_remote_code=True)
    assert type(base)._supports_attention_backend
    assert base.get_encoder(modality="image") is base.vision_tower
    assert config.get_text_config() is config.text_config
    # Its weights are those of the whole model without the prefix, and nothing else.
    stored = load_file(tiled / "model.safetensors")
    names = {name.removeprefix("model.") for name in stored if name.startswith("model.")}
    assert names == set(base.state_dict())
    model, processor = load(tiled)
    sizes = [(30, 90), (32, 32)]
    images = [Image.fromarray(picture(n, w, h)) for n, (h, w) in enumerate(sizes)]
    text = f"{processor.image_token} and {processor.image_token}"
    given = processor(images=images, text=text, return_tensors="pt", return_mm_token_type_ids=True)
    told = processor._get_num_multimodal_tokens(image_sizes=sizes)
    marked = given["mm_token_type_ids"] == 1
    assert told["num_image_tokens"] == [4 * 4, 4]
    assert sum(told["num_image_tokens"]) == int(marked.sum())
    assert told["num_image_patches"] == [4, 1]
    assert bool((given["input_ids"][marked] == processor.image_token_id).all())
    features = model.model.get_image_features(given["pixel_values"]).pooler_output
    assert [len(each) for each in features.split(told["num_image_patches"])] == [4, 1]
    embedded = model.model.embed(given["input_ids"], given["pixel_values"])
    states = base_of(model)(inputs_embeds=embedded, use_cache=False).last_hidden_state
    whole = model(**given, use_cache=False).logits
    assert torch.allclose(model.lm_head(states), whole, atol=1e-5)


def base_of(model: Any) -> Any:
    return model.model


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_attention_is_exchangeable_in_all_parts(name: str, tiled: Path):
    model = AutoModelForImageTextToText.from_pretrained(
        tiled, dtype=torch.float32, trust_remote_code=True, attn_implementation=name
    )
    for part in (model, model.model.vision_tower, model.model.language_model, model.causal):
        assert part.config._attn_implementation == name


def test_own_attention_is_called_with_what_the_caller_hands_down(tiled: Path):
    """What serving engines plug in sees every layer, and their extra arguments."""
    seen: list[Any] = []

    def watching(module: Any, *given: Any, **kwargs: Any) -> Any:
        seen.append(kwargs.get("extra"))
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, *given, **kwargs)

    ALL_ATTENTION_FUNCTIONS.register("watching", watching)
    model, _ = load(tiled)
    model.set_attn_implementation("watching")
    with torch.no_grad():
        model.model(torch.tensor([[1, 2, 3]]), extra=5)
    assert seen == [5, 5]


def test_wrong_counts_say_what_was_found(tiled: Path):
    model, processor = load(tiled)
    with pytest.raises(ValueError, match="1 places of images in the text, and 2 images"):
        processor(images=[picture(1), picture(2)], text=processor.image_token)
    given = processor(images=[picture(1)], text=processor.image_token, return_tensors="pt")
    with pytest.raises(ValueError, match="4 image tokens, and 2 tiles give 8"):
        model(given["input_ids"], torch.cat([given["pixel_values"]] * 2))


def test_language_code_of_others_does_not_leave(parts: Parts, tmp_path: Path):
    def foreign(bundle: Any) -> None:
        config = copy.deepcopy(bundle.mllm.language.config)
        config.auto_map = {"AutoModelForCausalLM": "modeling.Other"}
        bundle.mllm.language.config = config

    with pytest.raises(ModelError, match="code of its own repository"):
        written(loader(parts, change=foreign), "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.iterdir()) == []


def test_labels_give_a_loss_that_trains(tiled: Path):
    model, processor = load(tiled)
    given = processor(images=[picture(1)], text=f"{processor.image_token} red", return_tensors="pt")
    loss = model(**given, labels=given["input_ids"]).loss
    loss.backward()
    assert model.model.multi_modal_projector.up.weight.grad.abs().sum() > 0
    assert model.model.vision_tower.embeddings.patch_embed.weight.grad.abs().sum() > 0
