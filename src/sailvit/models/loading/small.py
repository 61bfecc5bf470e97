"""Small towers and languages with random weights, saved as Hugging Face folders: the demo's and
studies' base parts are trained from them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Aimv2VisionConfig,
    AutoModel,
    AutoModelForCausalLM,
    Dinov2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    Qwen3Config,
    SiglipVisionConfig,
)

from sailvit.core.atomic import set_usual_mode
from sailvit.core.study.definition import NewLanguage, NewTower

# The defaults are the demo's: width 128 is small enough for a CPU and wide enough to read and see
# its world, copying from a description takes at least two blocks, and on the CPU attention in
# bf16 takes half the time with heads of width 64 that it takes with heads of 32.
_MLP = 3
"""Width of a tower's MLP, in widths of the tower."""


def save_small_tower(folder: Path, tower: NewTower, *, seed: int) -> None:
    """Write a tower with random weights, and its preprocessor config."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModel.from_config(_TOWERS[tower.family](tower)).save_pretrained(folder)
    set_usual_mode(folder)
    kind = "SiglipImageProcessor" if tower.family == "siglip" else "ViTImageProcessor"
    preprocessor = {
        "image_processor_type": kind,
        "do_resize": True,
        "size": {"height": tower.size, "width": tower.size},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(
        json.dumps(preprocessor, indent=1) + "\n", encoding="utf-8"
    )


def save_small_language(
    folder: Path, language: NewLanguage, tokenizer: PreTrainedTokenizerBase, *, seed: int
) -> None:
    """Write a language with random weights for the tokenizer's vocabulary, and the tokenizer."""
    config = _LANGUAGES[language.family](language, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    set_usual_mode(folder)


def _siglip(tower: NewTower) -> PretrainedConfig:
    return SiglipVisionConfig(
        hidden_size=tower.width,
        num_hidden_layers=tower.blocks,
        num_attention_heads=tower.heads,
        intermediate_size=_MLP * tower.width,
        image_size=tower.size,
        patch_size=tower.patch,
        vision_use_head=False,
        hidden_act="gelu",  # three times faster on the CPU in bf16 than its tanh approximation
    )


def _aimv2(tower: NewTower) -> PretrainedConfig:
    return Aimv2VisionConfig(
        hidden_size=tower.width,
        num_hidden_layers=tower.blocks,
        num_attention_heads=tower.heads,
        # Its MLP is gated: three matrices of two thirds the width have as many weights as two.
        intermediate_size=2 * _MLP * tower.width // 3,
        image_size=tower.size,
        patch_size=tower.patch,
        use_head=False,
    )


def _dinov2(tower: NewTower) -> PretrainedConfig:
    return Dinov2Config(
        hidden_size=tower.width,
        num_hidden_layers=tower.blocks,
        num_attention_heads=tower.heads,
        mlp_ratio=_MLP,
        image_size=tower.size,
        patch_size=tower.patch,
    )


def _llama(language: NewLanguage, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    return LlamaConfig(
        **_shared(language, tokenizer),
        num_key_value_heads=language.heads,
        intermediate_size=5 * language.width // 2,
        tie_word_embeddings=False,
    )


def _qwen3(language: NewLanguage, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    return Qwen3Config(
        **_shared(language, tokenizer),
        num_key_value_heads=max(1, language.heads // 2),
        head_dim=language.width // language.heads,
        intermediate_size=5 * language.width // 2,
        tie_word_embeddings=True,
    )


def _gpt_neox(language: NewLanguage, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    return GPTNeoXConfig(
        **_shared(language, tokenizer),
        intermediate_size=4 * language.width,
        tie_word_embeddings=False,
    )


def _shared(language: NewLanguage, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Settings that all families name alike."""
    return {
        "hidden_size": language.width,
        "num_hidden_layers": language.blocks,
        "num_attention_heads": language.heads,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


_TOWERS: dict[str, Callable[[NewTower], PretrainedConfig]] = {
    "siglip": _siglip,
    "aimv2": _aimv2,
    "dinov2": _dinov2,
}
_LANGUAGES: dict[str, Callable[[NewLanguage, PreTrainedTokenizerBase], PretrainedConfig]] = {
    "llama": _llama,
    "qwen3": _qwen3,
    "gpt_neox": _gpt_neox,
}
