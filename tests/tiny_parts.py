"""Towers and languages of every family, 32 wide, two blocks, saved in their real formats; and records to feed them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_tokenizers import CHATML, byte_tokenizer
from transformers import (
    Aimv2VisionConfig,
    AutoModel,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    Gemma3TextConfig,
    GemmaConfig,
    InternVLVisionConfig,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Siglip2VisionConfig,
    SiglipVisionConfig,
    SmolLM3Config,
    ViTConfig,
)

from sailvit.core.batch import Batch
from sailvit.core.recipe import PARTS, ModelConfig
from sailvit.core.records import Record, Sample, Turn
from sailvit.core.run import MODEL_FILE
from sailvit.data.processing.collate import collate
from sailvit.data.processing.processor import Processor
from sailvit.models.loading.build import ModelBundle, build
from sailvit.models.loading.folders import save_part

SIDE, PATCH = 32, 8
VOCABULARY = 405

_SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
}
VISION = {**_SIZE, "intermediate_size": 48, "image_size": SIDE, "patch_size": PATCH}
_DINO = {key: value for key, value in VISION.items() if key != "intermediate_size"} | {
    "mlp_ratio": 2
}
_SPECIALS = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
_TEXT = {
    **_SIZE,
    "intermediate_size": 48,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    **_SPECIALS,
}

TOWERS: dict[str, PretrainedConfig] = {
    "aimv2": Aimv2VisionConfig(**VISION, use_head=True),
    "siglip": SiglipVisionConfig(**VISION),
    "siglip2": Siglip2VisionConfig(
        **{k: v for k, v in VISION.items() if k != "image_size"}, num_patches=16
    ),
    "clip": CLIPVisionConfig(**VISION, projection_dim=16),
    "dinov2": Dinov2Config(**_DINO),
    "registers": Dinov2WithRegistersConfig(**_DINO, num_register_tokens=3),
    "internvl": InternVLVisionConfig(
        **{**VISION, "image_size": [SIDE, SIDE], "patch_size": [PATCH, PATCH]}, use_qk_norm=True
    ),
    "vit": ViTConfig(**VISION),
}
LANGUAGES: dict[str, PretrainedConfig] = {
    "qwen2": Qwen2Config(**_TEXT),
    "qwen3": Qwen3Config(**_TEXT, head_dim=16),
    "llama": LlamaConfig(**_TEXT),
    "smollm3": SmolLM3Config(**_TEXT, no_rope_layer_interval=2),
    "gemma": GemmaConfig(**_TEXT, head_dim=16),
    "gemma3": Gemma3TextConfig(
        **_TEXT, head_dim=16, sliding_window=5, layer_types=["sliding_attention", "full_attention"]
    ),
}
PREPROCESSOR = {
    "size": {"height": SIDE, "width": SIDE},
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.25],
}


class Parts:
    """A folder of saved parts, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tower(self, name: str) -> str:
        folder = self.folder / "towers" / name
        if not folder.exists():
            save_tower(TOWERS[name], folder)
        return str(folder)

    def language(self, name: str) -> str:
        folder = self.folder / "languages" / name
        if not folder.exists():
            save_language(LANGUAGES[name], folder)
        return str(folder)

    def config(
        self, tower: str = "siglip", language: str = "llama", **settings: Any
    ) -> ModelConfig:
        return ModelConfig(
            **{"tower": self.tower(tower), "language": self.language(language), **settings}
        )

    def build(self, tower: str = "siglip", language: str = "llama", **settings: Any) -> ModelBundle:
        return build(self.config(tower, language, **settings), seed=0)


def save_tower(
    config: PretrainedConfig, folder: Path, preprocessor: dict[str, Any] | None = PREPROCESSOR
) -> None:
    torch.manual_seed(1)
    AutoModel.from_config(config).save_pretrained(folder)
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))


def save_language(config: PretrainedConfig, folder: Path) -> None:
    torch.manual_seed(2)
    tokenizer = byte_tokenizer(CHATML)
    assert len(tokenizer) <= config.vocab_size
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def picture(seed: int, width: int = SIDE, height: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def record(
    name: str, *images: np.ndarray, answer: str = "a large red circle", kind: str = "chat"
) -> Record:
    question = "<image>" * len(images) + "what is left of the square?"
    return Record(name, (Turn("user", question), Turn("assistant", answer)), images, kind)


def samples(bundle: ModelBundle, records: list[Record]) -> list[Sample]:
    processor = Processor(bundle.tokenizer, bundle.layout, 512)
    return [processor("test", made) for made in records]


def mixed_records() -> list[Record]:
    """Text only, one image, two images, and a caption, all of different lengths."""
    return [
        record("text", answer="blue"),
        record("one", picture(1), answer="a small red square and a large blue circle"),
        record("two", picture(2), picture(3), answer="left of the circle"),
        record("caption", picture(4), answer="red", kind="caption"),
    ]


def captions(texts: list[str]) -> list[Record]:
    return [
        record(str(index), picture(10 + index), answer=text, kind="caption")
        for index, text in enumerate(texts)
    ]


def single_batches(made: list[Sample]) -> list[Batch]:
    return [collate([[sample]]) for sample in made]


def save_model(bundle: ModelBundle, folder: Path) -> Path:
    """A folder with the three parts of a model, as a stage of a run leaves it."""
    for part in PARTS:
        save_part(bundle, part, folder / part)
    settings = {"image": {"max_tiles": bundle.layout.max_tiles}, "chat_date": str(bundle.day)}
    (folder / MODEL_FILE).write_text(json.dumps(settings))
    return folder
