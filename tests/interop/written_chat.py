"""SAIL-VL and InternVL checkpoints at tiny size, by their public names, and what their code computes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from small_tokenizers import byte_tokenizer
from test_original_aimv2 import CONFIG, original_features, weights
from torch.nn.functional import conv2d, gelu, layer_norm, linear
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
)

from tiny_parts import LANGUAGES, PREPROCESSOR

WIDTH, TEXT, SIDE, PATCH, HEADS, BLOCKS = 32, 32, 32, 8, 4, 2
MARKS = ["<img>", "</img>", "<IMG_CONTEXT>"]
INTERNVIT = {
    "architectures": ["InternVisionModel"],
    "model_type": "intern_vit_6b",
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "image_size": SIDE,
    "patch_size": PATCH,
    "qkv_bias": True,
    "qk_normalization": False,
    "norm_type": "layer_norm",
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
    "use_flash_attn": True,
}


MOE = Qwen3MoeConfig(
    **{**LANGUAGES["qwen3"].to_dict(), "model_type": "qwen3_moe"},
    moe_intermediate_size=16,
    num_experts=4,
    num_experts_per_tok=2,
)

LARGE: dict[str, dict[str, Any]] = {
    "internvit": {},
    "internvit-6b": {"qkv_bias": False, "qk_normalization": True, "norm_type": "rms_norm"},
}
"""What the two sizes of InternViT have of their own."""


@dataclass
class Written:
    """A checkpoint folder, and its halves as plain objects."""

    folder: Path
    vision: dict[str, torch.Tensor]
    connector: dict[str, torch.Tensor]
    language: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    config: dict[str, Any]

    @torch.no_grad()
    def features(self, tiles: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        pixels = (tiles / 255 - mean) / std
        if self.config["vision_config"]["model_type"] == "aimv2":
            return original_features(self.vision, pixels)
        return internvit_features(self.vision, pixels, self.config["vision_config"])

    @torch.no_grad()
    def visual(self, tiles: torch.Tensor) -> torch.Tensor:
        """`extract_feature`: the published pixel shuffle, then mlp1."""
        rows, side = len(tiles), SIDE // PATCH
        x = self.features(tiles).reshape(rows, side, side, WIDTH)
        x = x.view(rows, side, side // 2, WIDTH * 2).permute(0, 2, 1, 3).contiguous()
        x = x.view(rows, side // 2, side // 2, WIDTH * 4)
        if self.config.get("ps_version", "v1") != "v1":
            x = x.permute(0, 2, 1, 3).contiguous()
        x = x.reshape(rows, -1, WIDTH * 4)
        get = self.connector
        x = layer_norm(x, x.shape[-1:], get["mlp1.0.weight"], get["mlp1.0.bias"])
        x = gelu(linear(x, get["mlp1.1.weight"], get["mlp1.1.bias"]))
        return linear(x, get["mlp1.3.weight"], get["mlp1.3.bias"])

    @torch.no_grad()
    def logits(self, ids: list[int], tiles: torch.Tensor) -> torch.Tensor:
        tokens = torch.tensor(ids)
        embedded = self.language.get_input_embeddings()(tokens)
        placeholder = self.tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
        embedded[tokens == placeholder] = self.visual(tiles).flatten(0, 1)
        return self.language(inputs_embeds=embedded[None]).logits[0]

    def continuation(self, ids: list[int], tiles: torch.Tensor, longest: int) -> list[int]:
        text = list(ids)
        for _ in range(longest):
            text.append(int(self.logits(text, tiles)[-1].argmax()))
        return text[len(ids) :]


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def drawn(*shape: int, seed: int, scale: float = 0.2) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def internvit_weights(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """An InternViT's tensors, by the names that are published."""
    shapes = {
        "embeddings.class_embedding": (1, 1, WIDTH),
        "embeddings.position_embedding": (1, (SIDE // PATCH) ** 2 + 1, WIDTH),
        "embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        "embeddings.patch_embedding.bias": (WIDTH,),
    }
    for n in range(BLOCKS):
        block = f"encoder.layers.{n}."
        shapes |= {f"{block}{name}": (WIDTH,) for name in ("ls1", "ls2")}
        shapes |= {
            f"{block}norm{i}.{kind}": (WIDTH,) for i in (1, 2) for kind in ("weight", "bias")
        }
        shapes |= {
            f"{block}attn.qkv.weight": (3 * WIDTH, WIDTH),
            f"{block}attn.qkv.bias": (3 * WIDTH,),
            f"{block}attn.proj.weight": (WIDTH, WIDTH),
            f"{block}attn.proj.bias": (WIDTH,),
            f"{block}mlp.fc1.weight": (48, WIDTH),
            f"{block}mlp.fc1.bias": (48,),
            f"{block}mlp.fc2.weight": (WIDTH, 48),
            f"{block}mlp.fc2.bias": (WIDTH,),
        }
        norms = [f"attn.{part}_norm.weight" for part in "qk"] if config["qk_normalization"] else []
        shapes |= {block + name: (WIDTH,) for name in norms}
    plain = {name: drawn(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    absent = {"attn.qkv.bias"} if not config["qkv_bias"] else set()
    absent |= {"norm1.bias", "norm2.bias"} if config["norm_type"] == "rms_norm" else set()
    return {
        name: tensor
        for name, tensor in plain.items()
        if ".".join(name.split(".")[3:]) not in absent
    }


def normed(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, kind: str
) -> torch.Tensor:
    if kind == "layer_norm":
        return layer_norm(x, (WIDTH,), weight, bias, 1e-6)
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def internvit_features(
    state: dict[str, torch.Tensor], pixels: torch.Tensor, config: dict[str, Any]
) -> torch.Tensor:
    """InternViT's forward from its description, without the class token."""
    x = conv2d(
        pixels,
        state["embeddings.patch_embedding.weight"],
        state["embeddings.patch_embedding.bias"],
        stride=PATCH,
    )
    rows = len(x)
    first = state["embeddings.class_embedding"].expand(rows, 1, WIDTH)
    x = torch.cat([first, x.flatten(2).mT], dim=1) + state["embeddings.position_embedding"]
    for n in range(BLOCKS):
        start = f"encoder.layers.{n}."
        get = {
            name.removeprefix(start): tensor
            for name, tensor in state.items()
            if name.startswith(start)
        }
        h = normed(x, get["norm1.weight"], get.get("norm1.bias"), config["norm_type"])
        h = linear(h, get["attn.qkv.weight"], get.get("attn.qkv.bias")).reshape(rows, -1, 3, WIDTH)
        q, k, v = h.unbind(2)
        if config["qk_normalization"]:
            q, k = (
                normed(each, get[f"attn.{part}_norm.weight"], None, "rms_norm")
                for part, each in (("q", q), ("k", k))
            )
        q, k, v = (each.reshape(rows, -1, HEADS, WIDTH // HEADS) for each in (q, k, v))
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        scores = (q @ k.mT / (WIDTH // HEADS) ** 0.5).softmax(-1)
        h = (scores @ v).transpose(1, 2).reshape(rows, -1, WIDTH)
        x = x + linear(h, get["attn.proj.weight"], get["attn.proj.bias"]) * get["ls1"]
        h = normed(x, get["norm2.weight"], get.get("norm2.bias"), config["norm_type"])
        h = gelu(linear(h, get["mlp.fc1.weight"], get["mlp.fc1.bias"]))
        x = x + linear(h, get["mlp.fc2.weight"], get["mlp.fc2.bias"]) * get["ls2"]
    return x[:, 1:]


def write_chat(
    folder: Path,
    *,
    tower: str = "aimv2",
    language: str = "qwen3",
    tie: bool = False,
    dtype: torch.dtype = torch.float32,
    **changes: Any,
) -> Written:
    """A released checkpoint's folder; `changes` go into its config."""
    folder.mkdir(parents=True)
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(MARKS, special_tokens=True)
    kind = MOE if language == "qwen3_moe" else LANGUAGES[language]
    text = kind.to_dict() | {"tie_word_embeddings": tie}
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(type(kind)(**text)).to(dtype)
    given = {**CONFIG, "model_type": "aimv2"} if tower == "aimv2" else INTERNVIT | LARGE[tower]
    vision = weights() if tower == "aimv2" else internvit_weights(given)
    vision = {name: tensor.to(dtype) for name, tensor in vision.items()}
    connector = {
        "mlp1.0.weight": 1 + drawn(4 * WIDTH, seed=91),
        "mlp1.0.bias": drawn(4 * WIDTH, seed=92),
        "mlp1.1.weight": drawn(TEXT, 4 * WIDTH, seed=93),
        "mlp1.1.bias": drawn(TEXT, seed=94),
        "mlp1.3.weight": drawn(TEXT, TEXT, seed=95),
        "mlp1.3.bias": drawn(TEXT, seed=96),
    }
    connector = {name: tensor.to(dtype) for name, tensor in connector.items()}
    config = {
        "architectures": ["SAILVLModel" if tower == "aimv2" else "InternVLChatModel"],
        "auto_map": {"AutoModel": "modeling_sailvl.SailVLModel"},
        "model_type": "internvl_chat",
        "template": "sailvl-chat",
        "select_layer": -1,
        "ps_version": "v2",
        "downsample_ratio": 0.5,
        "force_image_size": SIDE,
        "dynamic_image_size": True,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 12,
        "use_thumbnail": True,
        "vision_config": given,
        "llm_config": {**text, "architectures": [type(model).__name__]},
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    state = {f"vision_model.{name}": tensor for name, tensor in vision.items()}
    held = {
        name: tensor for name, tensor in model.state_dict().items() if not (tie and "head" in name)
    }
    state |= connector | {f"language_model.{name}": tensor for name, tensor in held.items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    tokenizer.save_pretrained(folder)
    return Written(folder, vision, connector, model.eval(), tokenizer, config)
