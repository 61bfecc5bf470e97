"""Tiny checkpoints that hold a vision tower: alone, in a dual encoder, or in a multimodal model, saved as released."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_MAPPING,
    PretrainedConfig,
    PreTrainedModel,
)

from sailvit.core.recipe import ImageConfig, ModelConfig
from tiny_parts import PATCH, PREPROCESSOR, SIDE

_DUAL = """
clip siglip siglip2 aimv2 metaclip_2 blip altclip chinese_clip clipseg owlvit owlv2 flava git
"""
DUAL = _DUAL.split()
"""Dual encoders, and others whose vision half is a model of its own."""
_MULTIMODAL = """
llava llava_next llava_onevision vipllava internvl idefics2 idefics3 smolvlm gemma3 paligemma
aya_vision cohere2_vision mistral3 lighton_ocr lfm2_vl ovis2 janus blip-2 instructblip kosmos-2
aria deepseek_vl got_ocr2 phi4_multimodal qianfan_ocr modernvbert
qwen2_vl qwen2_5_vl qwen3_vl qwen3_vl_moe qwen3_5
"""
MULTIMODAL = _MULTIMODAL.split()
"""Multimodal models whose vision tower is a submodule with patch tokens."""
_ALONE = """
aimv2_vision_model clip_vision_model siglip_vision_model siglip2_vision_model dinov2
dinov2_with_registers dinov3_vit internvl_vision vit deit beit data2vec-vision ijepa vit_msn
vit_mae mlcd_vision_model pixio dpt vitdet sam_vision_model sam3_vit_model tipsv2_vision_model
pixtral idefics3_vision yolos radio
"""
ALONE = _ALONE.split()
"""Vision models by themselves."""
_OWN: dict[str, dict[str, Any]] = {
    "yolos": {"image_size": [SIDE, SIDE], "num_detection_tokens": 5},
    "dinov2_with_registers": {"num_register_tokens": 3},
    "dinov3_vit": {"num_register_tokens": 3},
    "radio": {
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
        **{"intermediate_size": 48, "patch_size": PATCH, "image_size": SIDE},
    },
}
"""What single families need beyond small sizes."""
_INSIDE: dict[str, dict[str, Any]] = {
    "qwen2_5_vl_vision": {"window_size": 2 * PATCH, "fullatt_block_indexes": [1]},
    "qwen3_vl_vision": {"deepstack_visual_indexes": [0], "num_position_embeddings": 16},
    "qwen3_vl_moe_vision": {"deepstack_visual_indexes": [0], "num_position_embeddings": 16},
}
"""The same for vision models inside multimodal ones."""
REFUSED = {
    "groupvit": "whose vision half .* is no model that can be saved and loaded by itself",
    "xclip": r"cannot run on a tile of 32 px .*reads videos, 8 frames at a time \(num_frames\)",
    "minicpmv4_6": "takes target_sizes, which a tile does not come with. Expected a ViT that",
    "convnext": "it has 4 layers that shrink its grid, so it merges patches. Expected a ViT",
    "align": "has no patch_size",
    "mllama": "needs aspect_ratio_ids and aspect_ratio_mask besides the tiles",
    "video_llava": r"several vision models .* under image_tower\. and video_tower\.",
}
"""Models whose vision tower does not give one token per patch of a tile, and the reason."""

_SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "embed_dim", "out_hidden_size", "dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "depth", "num_layers", "encoder_layers"), 2),
    **dict.fromkeys(("decoder_layers", "layers"), 2),
    **dict.fromkeys(("num_attention_heads", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim"), 48),
    **dict.fromkeys(("num_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 128),
    "vocab_size": 405,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "image_size": SIDE,
    "patch_size": PATCH,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def vision_config(family: str) -> PretrainedConfig:
    """The small config of a vision model by itself."""
    kind = CONFIG_MAPPING[family]
    if family == "radio":
        return kind(**_OWN[family])
    # Models that are also backbones name their layers when they are made.
    layers = {"num_hidden_layers": 2} if hasattr(kind(), "out_features") else {}
    config = shrunk(kind(**layers))
    for name, value in _OWN.get(family, {}).items():
        setattr(config, name, value)
    return config


def shrunk(config: PretrainedConfig) -> PretrainedConfig:
    """The config, and every config in it, with small sizes."""
    known = config.to_dict()
    for name, value in _SMALL.items():
        if known.get(name) is not None:
            pair = isinstance(known[name], list | tuple)
            setattr(config, name, [value] * 2 if pair else value)
    for name, value in _INSIDE.get(config.model_type, {}).items():
        setattr(config, name, value)
    if known.get("layer_types"):
        config.layer_types = list(known["layer_types"])[:2]
    for name in getattr(config, "sub_configs", {}):
        if isinstance(inner := getattr(config, name, None), PretrainedConfig):
            shrunk(inner)
    return config


def whole_model(family: str) -> PreTrainedModel:
    """A tiny model of the family with random weights, of the class that its releases name."""
    config = shrunk(CONFIG_MAPPING[family]())
    kind = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), None)
    kind = kind or MODEL_MAPPING[type(config)]
    torch.manual_seed(0)
    model = (kind[0] if isinstance(kind, tuple) else kind)._from_config(config)
    return model.float().eval()


def save_source(family: str, folder: Path) -> None:
    """A checkpoint of the family: by itself, or the whole model that holds it."""
    if family not in ALONE:
        save_whole(family, folder)
        return
    torch.manual_seed(0)
    MODEL_MAPPING[CONFIG_MAPPING[family]]._from_config(vision_config(family)).save_pretrained(
        folder
    )
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))


def save_whole(family: str, folder: Path, **saving: Any) -> PreTrainedModel:
    """The model, saved in `folder` with a preprocessor config."""
    model = whole_model(family)
    model.save_pretrained(folder, **saving)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return model


def vision_half(model: PreTrainedModel, kind: type) -> PreTrainedModel:
    """The vision submodule of a whole model."""
    return next(part for part in model.modules() if type(part) is kind)


def asked(folder: Path, **settings: Any) -> ModelConfig:
    """The settings of a model whose tower is in `folder`."""
    return ModelConfig(
        **{"tower": str(folder), "language": "-", "image": ImageConfig(), **settings}
    )
