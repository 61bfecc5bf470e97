"""Small dual encoders as folders, with tokenizer and image processor, and their vision towers."""

from __future__ import annotations

from pathlib import Path

import torch
from small_tokenizers import byte_tokenizer
from transformers import (
    Aimv2Config,
    AutoModel,
    CLIPConfig,
    CLIPImageProcessor,
    PreTrainedModel,
    Siglip2Config,
    SiglipConfig,
    SiglipImageProcessor,
)

SIDE = 32
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
KINDS = {
    "siglip": (SiglipConfig, {"image_size": SIDE}),
    "siglip2": (Siglip2Config, {"num_patches": 16}),
    "clip": (CLIPConfig, {"image_size": SIDE}),
    "aimv2": (Aimv2Config, {"image_size": SIDE}),
}


def write_dual(kind: str, folder: Path) -> Path:
    """A dual encoder of random weights."""
    config, vision = KINDS[kind]
    tokenizer = byte_tokenizer()
    torch.manual_seed(3)
    text = {
        **SIZES,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 16,
        "projection_size": 32,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    made = config(text_config=text, vision_config={**SIZES, "patch_size": 8, **vision})
    model = AutoModel.from_config(made)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _save_processor(kind, folder)
    return folder


def save_refined(dual: Path, folder: Path, kind: str, *, by: float) -> PreTrainedModel:
    """The vision tower of a dual encoder, its weights changed, as a folder of its own."""
    tower = AutoModel.from_pretrained(dual).vision_model
    torch.manual_seed(5)
    for parameter in tower.parameters():
        parameter.data.add_(by * torch.randn_like(parameter))
    tower.save_pretrained(folder)
    _save_processor(kind, folder)
    return tower


def _save_processor(kind: str, folder: Path) -> None:
    size = {"height": SIDE, "width": SIDE}
    if kind == "clip":
        CLIPImageProcessor(size=size, crop_size=size).save_pretrained(folder)
    else:
        SiglipImageProcessor(size=size).save_pretrained(folder)
