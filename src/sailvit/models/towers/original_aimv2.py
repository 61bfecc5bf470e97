"""The original layout of AIMv2 checkpoints, which SAILViT's releases share, and transformers' own.

Both hold the same tensors: transformers has other names, queries, keys and values as three
matrices instead of one, and the position table without its batch dimension. No code that lies
beside the weights is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from transformers import Aimv2VisionConfig, Aimv2VisionModel

from sailvit.core.errors import ModelError
from sailvit.models.guards.checkpoint_files import weight_files

_TYPES = ("sailvit", "aimv2")
"""`model_type` of flat configs in the original layout; transformers' own is `aimv2_vision_model`,
and its `aimv2` nests two towers."""
_NAMES = {
    "preprocessor.patchifier.proj": "embeddings.patch_embed",
    "preprocessor.patchifier.norm": "embeddings.rms_norm",
    "trunk.post_trunk_norm": "rms_norm",
    "norm_1": "rms_norm1",
    "norm_2": "rms_norm2",
    "attn.proj": "attention.out_proj",
    "mlp.fc1": "ffn.gate_proj",
    "mlp.fc2": "ffn.down_proj",
    "mlp.fc3": "ffn.up_proj",
}
"""Modules by their original names; those of a block follow `trunk.blocks.N.`."""
_OWN = {ours: original for original, ours in _NAMES.items()}
_POSITIONS, TABLE = "preprocessor.pos_embed", "embeddings.position_embedding.weight"
_BLOCK, _LAYER = r"trunk\.blocks\.(\d+)\.", r"encoder\.layers\.(\d+)\."
SPLIT = ("q_proj", "k_proj", "v_proj")
"""The thirds of the original's fused matrix, in its order."""
FUSED = "{q,k,v}_proj"
_KEPT = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "rms_norm_eps",
    "qkv_bias",
)
"""Config keys that both layouts call the same."""


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's config.json is one of the original layout."""
    return config.get("model_type") in _TYPES and "vision_config" not in config


def original_config(config: Mapping[str, Any]) -> Aimv2VisionConfig:
    """Transformers' config of a checkpoint in the original layout.

    Raises:
        ModelError: the config asks for something that transformers' model does not have.
    """
    if lacking := [name for name in _KEPT[:4] if name not in config]:
        raise ModelError(
            f"the config of a {config['model_type']} tower lacks {' and '.join(lacking)}; expected"
            " the config.json of an AIMv2 or SAILViT checkpoint: download it again"
        )
    if config.get("use_bias", False) or config.get("qkv_bias", False):
        raise ModelError(
            f"the {config['model_type']} tower has biases (use_bias, qkv_bias), which no released"
            " AIMv2 checkpoint has and this layout cannot hold; save it by transformers' class"
        )
    given = {name: config[name] for name in _KEPT if name in config}
    # Checkpoints at native resolution compute their positions and hold no table.
    native = bool(config.get("is_native", False))
    return Aimv2VisionConfig(**given, use_head=False, is_native=native)


def config_for_original(config: Aimv2VisionConfig) -> dict[str, Any]:
    """The config.json of the original layout for transformers' config."""
    kept = {name: getattr(config, name) for name in _KEPT}
    native = {"is_native": True} if config.is_native else {}
    return {"architectures": ["SAILViTModel"], "model_type": "sailvit", **kept, **native} | {
        "use_bias": bool(config.mlp_bias),
        "attention_dropout": 0.0,
        "projection_dropout": 0.0,
    }


def from_original(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors in the original layout under transformers' names, without a copy.

    Raises:
        ModelError: a tensor has a name that is none of the original layout.
    """
    found: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        new = transformers_name(name)
        if new == TABLE:
            # The original keeps a batch dimension of 1.
            found[new] = tensor[0]
        elif FUSED in new:
            thirds = zip(SPLIT, tensor.chunk(3), strict=True)
            found |= {new.replace(FUSED, part): third for part, third in thirds}
        else:
            found[new] = tensor
    return found


def transformers_name(name: str) -> str:
    """Transformers' name of a tensor in the original layout, with `FUSED` in the place of each
    of `SPLIT` where it holds all three; `TABLE` holds one dimension less.

    Raises:
        ModelError: the name is none of the original layout.
    """
    if name == _POSITIONS:
        return TABLE
    block = re.match(_BLOCK, name)
    inner = name if block is None else name[block.end() :]
    start = "" if block is None else f"encoder.layers.{block[1]}."
    if inner == "attn.qkv.weight":
        return f"{start}attention.{FUSED}.weight"
    return start + _renamed(inner, _NAMES, name)


def to_original(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors under transformers' names in the original layout; a pooling head has no place
    there, and is left out.

    Raises:
        ModelError: a tensor has a name that is none of `Aimv2VisionModel`.
    """
    found: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        layer = re.match(_LAYER, name)
        inner = name if layer is None else name[layer.end() :]
        start = "" if layer is None else f"trunk.blocks.{layer[1]}."
        if name == TABLE:
            found[_POSITIONS] = tensor[None]
        # With the first third all are taken; the other two are passed over below.
        elif inner == "attention.q_proj.weight":
            thirds = [state[name.replace("q_proj", part)] for part in SPLIT]
            found[start + "attn.qkv.weight"] = torch.cat(thirds)
        elif not name.startswith("head.") and inner.split(".")[-2] not in SPLIT:
            found[start + _renamed(inner, _OWN, name)] = tensor
    return found


def read_original(source: str, revision: str | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a folder or hub id in the original layout, under transformers' names.

    Raises:
        ModelError: it has no weights in safetensors, or they are in another layout.
    """
    folder = Path(source)
    if not folder.is_dir():
        # No pickles, which would run code.
        kept = ["*.safetensors", "*.json"]
        folder = Path(snapshot_download(source, revision=revision, allow_patterns=kept))
    state: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        state |= load_file(path)
    if "preprocessor.patchifier.proj.weight" not in state:
        raise ModelError(
            f"the tower {source!r} has the config of an original AIMv2 checkpoint, and weights of"
            f" another layout ({', '.join(sorted(state)[:2])}, ...); expected names such as"
            " preprocessor.patchifier.proj.weight and trunk.blocks.0.attn.qkv.weight"
        )
    return from_original(state)


def load_original(
    source: str, config: Aimv2VisionConfig, *, revision: str | None, attention: str | None
) -> tuple[Aimv2VisionModel, dict[str, Any]]:
    """The model in fp32 with the weights of a checkpoint in the original layout, and what
    loading found.
    """
    model, info = Aimv2VisionModel.from_pretrained(
        None,
        config=config,
        state_dict=read_original(source, revision),
        dtype=torch.float32,
        attn_implementation=attention,
        output_loading_info=True,
    )
    return model, info


def _renamed(inner: str, names: Mapping[str, str], whole: str) -> str:
    """The other layout's name of a module's tensor."""
    module, _, kind = inner.rpartition(".")
    if module not in names:
        raise ModelError(
            f"the tensor {whole} has no place in the other layout of AIMv2; expected a checkpoint"
            " of one vision tower without biases, saved by AIMv2's or SAILViT's code or transformers"
        )
    return f"{names[module]}.{kind}"
