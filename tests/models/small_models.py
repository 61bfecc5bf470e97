"""Models small enough to run in milliseconds, of the families that recipes name."""

from __future__ import annotations

import torch
from transformers import (
    Aimv2VisionConfig,
    AutoModel,
    AutoModelForCausalLM,
    Dinov2Config,
    LlamaConfig,
    Qwen3Config,
    SiglipVisionConfig,
)

from sailvit.models.packing.attention import PACKED, register_attention
from sailvit.models.structure.connector import fresh_connector
from sailvit.models.structure.mllm import MLLM
from sailvit.models.towers.tower import Preprocessing, Tower

SIDE, PATCH = 32, 8
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
VISION |= {"image_size": SIDE, "patch_size": PATCH}
TEXT = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
TEXT |= {"head_dim": 16, "vocab_size": 96, "tie_word_embeddings": True}
TOWERS = {
    "aimv2": Aimv2VisionConfig(**VISION, use_head=False),
    "dinov2": Dinov2Config(**VISION),
    "siglip": SiglipVisionConfig(**VISION),
}
LANGUAGES = {"llama": LlamaConfig(**TEXT), "qwen3": Qwen3Config(**TEXT)}
LANGUAGES["untied"] = Qwen3Config(**{**TEXT, "tie_word_embeddings": False})


def mllm(tower: str = "aimv2", language: str = "qwen3") -> MLLM:
    register_attention()
    torch.manual_seed(0)
    vision = AutoModel.from_config(TOWERS[tower], attn_implementation="sdpa")
    text = AutoModelForCausalLM.from_config(LANGUAGES[language], attn_implementation=PACKED)
    connector = fresh_connector("merge_mlp", tower_width=32, language_width=48, hidden=40, merge=2)
    model = MLLM(
        Tower(vision, Preprocessing(SIDE, (0.5,) * 3, (0.5,) * 3)),
        connector,
        text,
        placeholder_id=95,
    )
    return model.train()
