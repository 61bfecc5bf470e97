"""What people report of exported multimodal models, each as a tiny input to the `hf` layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import loader, written
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    TextStreamer,
    pipeline,
)

from sailvit.core.recipe import ImageConfig
from tiny_parts import Parts, picture

WRAP = ImageConfig(max_tiles=4, wrap=("<img>", "</img>"))


@pytest.fixture(scope="module")
def folder(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "out"
    written(loader(parts, "siglip", "qwen3", image=WRAP), "hf", out)
    return out


def load(folder: Path, **options: Any) -> tuple[Any, Any]:
    options = {"dtype": torch.float32, **options}
    model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True, **options)
    return model.eval(), AutoProcessor.from_pretrained(folder, trust_remote_code=True)


def inputs_of(processor: Any, seed: int = 1) -> Any:
    pieces = [
        {"type": "image", "image": Image.fromarray(picture(seed, 70, 30))},
        {"type": "text", "text": "What is red?"},
    ]
    return processor.apply_chat_template(
        [{"role": "user", "content": pieces}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def test_image_token_and_vocabulary_are_the_tokenizer_s(folder: Path):
    """Added tokens beyond the embeddings, or another id of the image token, end generation."""
    config = json.loads((folder / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) <= config["text_config"]["vocab_size"]
    assert config["image_token_id"] == tokenizer.convert_tokens_to_ids("<|image_pad|>")
    model, _ = load(folder)
    assert model.get_input_embeddings().num_embeddings == config["text_config"]["vocab_size"]


@torch.no_grad()
def test_saved_again_it_is_the_same(folder: Path, tmp_path: Path):
    """After fine-tuning people call save_pretrained: code, processor and ties must survive."""
    model, processor = load(folder)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, reader = load(tmp_path)
    before, after = inputs_of(processor), inputs_of(reader)
    assert after["input_ids"].tolist() == before["input_ids"].tolist()
    assert torch.equal(after["pixel_values"], before["pixel_values"])
    assert torch.equal(again(**after).logits, model(**before).logits)


def test_beams_and_several_answers_share_the_images(folder: Path):
    """Images are not repeated with the rows, which others' models refuse."""
    model, processor = load(folder)
    inputs = inputs_of(processor)
    beams = model.generate(**inputs, num_beams=3, num_return_sequences=2, max_new_tokens=4)
    assert beams.shape[0] == 2
    drawn = model.generate(**inputs, do_sample=True, num_return_sequences=3, max_new_tokens=4)
    assert drawn.shape[0] == 3


def test_with_and_without_a_cache(folder: Path):
    model, processor = load(folder)
    inputs, options = inputs_of(processor), {"max_new_tokens": 6, "do_sample": False}
    cached = model.generate(**inputs, **options)
    whole = model.generate(**inputs, use_cache=False, **options)
    assert torch.equal(cached, whole)


def test_half_precision_takes_the_processor_s_float32_pixels(folder: Path):
    model, processor = load(folder, dtype=torch.bfloat16)
    inputs = inputs_of(processor)
    assert inputs["pixel_values"].dtype == torch.float32
    assert model(**inputs).logits.dtype == torch.bfloat16
    assert model.generate(**inputs, max_new_tokens=2).shape[1] > inputs["input_ids"].shape[1]


def test_a_larger_vocabulary_moves_table_and_head(folder: Path):
    model, processor = load(folder)
    size = model.get_input_embeddings().num_embeddings + 3
    model.resize_token_embeddings(size)
    assert model(**inputs_of(processor)).logits.shape[-1] == size
    assert model.causal.get_output_embeddings() is model.lm_head


def test_recomputed_blocks_give_the_same_gradients(folder: Path):
    grads = []
    for recomputed in (False, True):
        model, processor = load(folder)
        model.train()
        if recomputed:
            model.gradient_checkpointing_enable()
        inputs = inputs_of(processor)
        model(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
        grads.append(model.model.multi_modal_projector.up.weight.grad)
    assert torch.allclose(*grads, atol=1e-6)


def test_the_pipeline_answers(folder: Path):
    model, processor = load(folder)
    ask = pipeline("image-text-to-text", model=model, processor=processor)
    image = Image.fromarray(picture(1, 70, 30))
    pieces = [{"type": "image", "image": image}, {"type": "text", "text": "What is red?"}]
    made = ask(text=[{"role": "user", "content": pieces}], max_new_tokens=3, do_sample=False)
    assert isinstance(made[0]["generated_text"][-1]["content"], str)


def test_continuing_from_streams_works(folder: Path):
    """Serving programs stream; the prompt is skipped by its length."""
    model, processor = load(folder)
    told: list[str] = []
    streamer = TextStreamer(processor.tokenizer, skip_prompt=True)
    streamer.on_finalized_text = lambda text, stream_end=False: told.append(text)
    made = model.generate(
        **inputs_of(processor), streamer=streamer, max_new_tokens=4, do_sample=False
    )
    text = processor.tokenizer.decode(made[0, -4:])
    assert "".join(told) == text
