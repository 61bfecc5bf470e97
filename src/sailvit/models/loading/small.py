"""Small towers and languages with random weights, saved as Hugging Face folders: the demo's
base parts are trained from them.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedTokenizerBase,
    SiglipVisionConfig,
)

WIDTH = 128
"""D of both parts: small enough for a CPU, wide enough to read and see the demo's world."""
BLOCKS = 4
"""Transformer blocks of both parts; copying from a description takes at least two."""
HEADS = 2
"""Heads of width 64: on the CPU attention in bf16 takes half the time of four heads of 32."""


def save_small_tower(folder: Path, *, size: int, patch: int, seed: int) -> None:
    """Write a SigLIP tower with random weights for tiles of `size` px, and its preprocessor
    config.
    """
    config = SiglipVisionConfig(
        hidden_size=WIDTH,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        intermediate_size=3 * WIDTH,
        image_size=size,
        patch_size=patch,
        vision_use_head=False,
        hidden_act="gelu",  # three times faster on the CPU in bf16 than its tanh approximation
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModel.from_config(config).save_pretrained(folder)
    preprocessor = {
        "image_processor_type": "SiglipImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
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


def save_small_language(folder: Path, tokenizer: PreTrainedTokenizerBase, *, seed: int) -> None:
    """Write a Llama language with random weights for the tokenizer's vocabulary, and the
    tokenizer.
    """
    config = LlamaConfig(
        hidden_size=WIDTH,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        intermediate_size=5 * WIDTH // 2,
        vocab_size=len(tokenizer),
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
