"""A tiny language of any class that transformers loads as a causal language model, with random weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from sailvit.core.recipe import Packing
from sailvit.core.records import Sample
from sailvit.data.processing.collate import collate
from sailvit.distributed.processes import rank, world
from sailvit.distributed.sharding import whole
from sailvit.models.structure.connector import fresh_connector
from sailvit.models.structure.mllm import MLLM
from sailvit.models.structure.packing_choice import choose_way
from sailvit.models.towers.tower import Preprocessing, Tower

VOCABULARY = 405
WIDTH, HEADS, HEAD_WIDTH = 32, 4, 8
WINDOW = 5

_WIDTHS = ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "decoder_hidden_size")
_LAYERS = (
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"),
    *("encoder_layers", "num_encoder_layers", "num_decoder_layers"),
)
_HEADS = (
    *("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads"),
    *("encoder_attention_heads", "num_heads"),
)
_SMALL: dict[str, Any] = {
    **dict.fromkeys(_WIDTHS, WIDTH),
    **dict.fromkeys(_LAYERS, 2),
    **dict.fromkeys(_HEADS, HEADS),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("mamba_d_state", "state_size", "ssm_state_size", "mamba_state_dim"), 8),
    **dict.fromkeys(("n_group", "topk_group", "n_groups", "mamba_n_groups"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 128),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop"), 0.0),
    **dict.fromkeys(("attn_pdrop", "dropout", "activation_dropout", "layerdrop"), 0.0),
    "residual_dropout": 0.0,
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0),
    **dict.fromkeys(("sliding_window", "attention_window", "attention_chunk_size"), WINDOW),
    "decoder_layerdrop": 0.0,
    "vocab_size": VOCABULARY,
    "num_key_value_heads": 2,
    "head_dim": HEAD_WIDTH,
    "q_lora_rank": 16,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "qk_head_dim": 16,
    "first_k_dense_replace": 1,
    "num_mem_blocks": 1,
    "mamba_chunk_size": 4,
    "chunk_size": 4,
    "n_shared_experts": 1,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
    "initializer_range": 0.2,
    "init_std": 0.2,
    "use_mamba_kernels": False,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

_LATENT = (
    *("deepseek_v2", "deepseek_v3", "deepseek_v32", "axk1", "axk2", "glm_moe_dsa"),
    *("glm4_moe_lite", "longcat_flash", "minicpm3", "youtu", "bailing_hybrid", "kimi_linear"),
)
"""Families with latent attention (MLA), in which every head has keys and values of its own."""

_OWN: dict[str, dict[str, Any]] = {
    "bamba": {
        "num_hidden_layers": 2,
        "attn_layer_indices": [1],
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
    },
    "falcon_h1": {"num_hidden_layers": 2, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_ssm": 64},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 1},
    **{family: {"num_key_value_heads": HEADS} for family in _LATENT},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"],
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "shared_intermediate_size": 16,
    },
    "lfm2_moe": {
        "layer_types": ["conv", "full_attention"],
        "num_hidden_layers": 2,
        "num_dense_layers": 1,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    "codegen": {"rotary_dim": 4},
    "gptj": {"rotary_dim": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": WINDOW},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4},
    "xlstm": {"chunk_size": 4, "num_heads": 4},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 16},
    "zamba2": {
        "num_hidden_layers": 2,
        "layers_block_type": ["mamba", "hybrid"],
        "n_mamba_heads": 8,
        "mamba_headdim": 8,
        "attention_head_dim": 16,
        "attention_hidden_size": 64,
    },
    "modernbert-decoder": {"bos_token_id": 0, "cls_token_id": 0, "sep_token_id": 2},
    "ctrl": {"dff": 48},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 32},
    },
    "zamba": {
        "num_hidden_layers": 3,
        "layers_block_type": ["mamba", "hybrid", "hybrid"],
        "attention_head_dim": 16,
        "attention_hidden_size": 64,
        "mamba_dt_rank": 4,
    },
    "zaya": {"num_experts_per_tok": 1},
    "longcat_flash": {"num_key_value_heads": HEADS, "zero_expert_num": 1},
    "reformer": {
        "is_decoder": True,
        "attn_layers": ["local", "lsh"],
        "attention_head_size": HEAD_WIDTH,
        "feed_forward_size": 48,
        "axial_pos_embds": False,
        "hash_seed": 1,
        "local_attention_probs_dropout_prob": 0.0,
    },
    "cwm": {"bos_token_id": 0},
    "gemma3n_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "intermediate_size": 48,
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
    },
}
"""What single families need beyond that, by model type."""


def tiny_config(kind: type[PretrainedConfig], **settings: Any) -> PretrainedConfig:
    """The config of `kind` with every size made small, and one layer of every kind that it has."""
    usual = kind()
    known = set(usual.to_dict()) | set(usual.attribute_map)
    chosen = {name: value for name, value in _SMALL.items() if name in known}
    types = getattr(usual, "layer_types", None)
    if types and "layer_types" in usual.to_dict():
        distinct = list(dict.fromkeys(types))
        distinct = distinct * 2 if len(distinct) == 1 else distinct
        chosen |= {name: len(distinct) for name in _LAYERS if name in known}
        if "layer_types" in known:
            chosen["layer_types"] = distinct
    return kind(**(chosen | _OWN.get(kind.model_type, {}) | settings))


def tiny_language(kind: type[PretrainedConfig], **settings: Any) -> PreTrainedModel:
    """A model of that config in float32, whose matrices are large enough for any leak to show."""
    torch.manual_seed(2)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(tiny_config(kind, **settings)).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Some families start with layers that do nothing, or have no initializer_range.
            if parameter.ndim > 1 and parameter.std() < 0.1 and "A_log" not in name:
                parameter.normal_(std=0.2)
            elif ("scale" in name or name.endswith("temp")) and not parameter.any():
                parameter.fill_(1.0)
    return model


def language_of(family: str, **settings: Any) -> PreTrainedModel:
    """A tiny language by transformers' model type."""
    return tiny_language(CONFIG_MAPPING[family], **settings)


LIMIT = 20
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
_LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": LIMIT,
    "short_factor": [1.0] * 4, "long_factor": [3.0] * 4,
}  # fmt: skip
VARYING: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": LIMIT, "rope_parameters": _DYNAMIC},
    "phi3": {"original_max_position_embeddings": LIMIT, "rope_parameters": _LONGROPE},
    "phimoe": {"rope_parameters": {**_LONGROPE, "short_mscale": 1.1, "long_mscale": 1.3}},
    "gemma3_text": {
        "max_position_embeddings": LIMIT,
        "rope_parameters": {
            "full_attention": _DYNAMIC,
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
}
"""Families whose rotations change with texts longer than the limit, and the settings for it."""


def varying_language(family: str) -> PreTrainedModel:
    """A tiny language of one of these families."""
    return language_of(family, **VARYING[family])


def model_of(language: PreTrainedModel, packing: Packing = "auto") -> MLLM:
    """The language in a model with a tower and a connector, its way of reading chosen."""
    config = SiglipVisionConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=16, patch_size=8,
    )  # fmt: skip
    preprocessing = Preprocessing(16, (0.5,) * 3, (0.5,) * 3)
    tower = Tower(SiglipVisionModel(config), preprocessing)
    width = language.get_input_embeddings().weight.shape[1]
    connector = fresh_connector(
        "merge_mlp", tower_width=16, language_width=width, merge=2, hidden=width
    )
    model = MLLM(tower, connector, language, placeholder_id=VOCABULARY - 1)
    choose_way(model, packing)
    return model.eval()


LENGTHS = (7, 19, 1, 12, 70, 23)
"""Tokens of the samples that are compared: several windows and chunks long, and in two groups of rows."""


def text_sample(tokens: torch.Tensor) -> Sample:
    """Text of which every position is scored."""
    return Sample(
        id="text",
        tokens=tokens,
        labels=tokens,
        tiles=torch.zeros(0, 3, 16, 16, dtype=torch.uint8),
        image_of_tile=torch.zeros(0, dtype=torch.long),
        caption=False,
    )


def plain_copy(language: PreTrainedModel) -> PreTrainedModel:
    """The same weights with transformers' own plain attention and nothing of ours."""
    plain = copy.deepcopy(language)
    if plain._can_set_attn_implementation():
        plain.set_attn_implementation("eager")
    for module in plain.modules():
        module._forward_hooks.clear()
    return plain


def worst_errors(model: MLLM, reference: PreTrainedModel | None = None) -> tuple[float, float]:
    """Largest errors of logits and of gradients of a pack against its samples one at a time, relative to the largest.

    The samples go through a copy of the language with transformers' own plain attention, nothing of ours; a model
    that is compiled or sharded comes with a copy made before. Every process has its own share of the samples.
    """
    reference = plain_copy(model.language) if reference is None else reference
    generator = torch.Generator().manual_seed(3)
    texts = [torch.randint(3, VOCABULARY - 1, (n,), generator=generator) for n in LENGTHS]
    weights = [torch.randn(n, VOCABULARY, generator=generator) for n in LENGTHS]
    mine = slice(rank(), None, world())
    found = model(collate([[text_sample(text) for text in texts[mine]]])).logits
    assert found is not None
    embeddings = reference.get_input_embeddings()
    # The shortest first, as some rotations remember the longest text so far.
    alone = {
        place: reference(inputs_embeds=embeddings(texts[place])[None], use_cache=False).logits[0]
        for place in sorted(range(len(texts)), key=LENGTHS.__getitem__)
    }
    expected = [alone[place] for place in range(len(texts))]
    (torch.cat(expected) * torch.cat(weights)).sum().backward()
    (found * torch.cat(weights[mine])).sum().backward()
    pairs = zip(model.language.named_parameters(), reference.parameters(), strict=True)
    errors, scale = [0.0], 1e-30
    for (name, own), other in pairs:
        assert (own.grad is None) == (other.grad is None), name
        if own.grad is not None and other.grad is not None:
            errors.append(float((whole(own.grad) - other.grad).abs().max()))
            scale = max(scale, float(other.grad.abs().max()))
    with torch.no_grad():
        beside = torch.cat(expected[mine])
        logits = float((found - beside).abs().max() / beside.abs().max())
    return logits, max(errors) / scale
