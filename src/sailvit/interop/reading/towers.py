"""The tower of a multimodal checkpoint, in transformers' own layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from math import isqrt
from typing import Any

import torch
from transformers import AutoModel, InternVLVisionConfig, PretrainedConfig
from transformers.core_model_loading import revert_weight_conversion

from sailvit.checkpoint.streaming import Piece
from sailvit.core.errors import ModelError
from sailvit.interop.reading.languages import finish_config
from sailvit.interop.reading.located import locate, refuse_other_shapes
from sailvit.interop.reading.plans import PartPlan, Planned, Refusal
from sailvit.interop.reading.stored import Names, Stored
from sailvit.models.guards.errors import Loading
from sailvit.models.towers.original_aimv2 import FUSED, SPLIT, TABLE, transformers_name

_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")
_NAMES = {
    "embeddings.class_embedding": "embeddings.cls_token",
    "embeddings.position_embedding": "embeddings.position_embeddings",
    "embeddings.patch_embedding": "embeddings.patch_embeddings.projection",
    "attn.proj": "attention.projection_layer",
    "attn.q_norm": "attention.q_norm",
    "attn.k_norm": "attention.k_norm",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "ls1": "lambda_1",
    "ls2": "lambda_2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
"""Modules and tensors of InternViT by their original names; those of a block follow
`encoder.layers.N.`."""
_FIRST = "encoder.layers.0."
_QKV, _FC1 = f"{_FIRST}attn.qkv.weight", f"{_FIRST}mlp.fc1.weight"
_HEADS = 25
"""Heads where a config does not tell, as no tensor does: the default of InternViT's own class."""
_QK_EPS = 1e-6
"""What transformers' class adds to the variance of queries and keys, whatever its config."""
_PLAIN = {"norm_type": ("layer_norm", "rms_norm"), "hidden_act": ("gelu",)}
"""Values of InternViT's config that transformers' class has as well."""


def plan_tower(names: Names, config: PretrainedConfig, source: str) -> Planned:
    """The tower of `config` in a checkpoint that keeps transformers' names of it."""
    # Only names and shapes of its tensors are asked for.
    with Loading("tower", source), torch.device("meta"):
        model = AutoModel.from_config(config)
    state = model.state_dict()
    # transformers saves some classes, such as ViT and DINOv2, by their older names, which it also
    # loads: the checkpoint has one or the other.
    forms = [_shapes(state), _shapes(revert_weight_conversion(model, state))]
    expected = max(forms, key=lambda shapes: len(locate(names, shapes)))
    found = locate(names, expected)
    # What features do not depend on, such as a pooling head, some checkpoints leave out.
    if missing := sorted(expected.keys() - found.keys() - _pooling(expected)):
        return Refusal(
            f"the checkpoint lacks {len(missing)} of its tensors ({', '.join(missing[:3])})"
        )
    refuse_other_shapes("tower", found, expected)
    pieces = tuple(stored.as_piece(name) for name, stored in found.items())
    finish_config(config, type(model), pieces)
    return PartPlan(config, pieces, {stored.name for stored in found.values()})


def plan_renamed(config: PretrainedConfig, pieces: list[Piece], used: set[str]) -> Planned:
    """The tower of `config` from pieces that have transformers' names already."""
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {piece.name: piece.shape for piece in pieces}
    wrong = sorted(n for n in expected.keys() | given.keys() if expected.get(n) != given.get(n))
    if wrong:
        name = wrong[0]
        return Refusal(
            f"{len(wrong)} of its tensors are not those of its config ({name}: found"
            f" {_told(given.get(name))}, expected {_told(expected.get(name))})"
        )
    finish_config(config, type(model), pieces)
    return PartPlan(config, tuple(pieces), used)


def internvit_config(given: dict[str, Any], names: Mapping[str, Stored]) -> InternVLVisionConfig:
    """Transformers' config of an InternViT, by its own config and its tensors' original names.

    Files leave out what equals the defaults of the config's own class (those of the 6B, at 224 px),
    which transformers' class does not share: the tensors tell.

    Raises:
        ModelError: it asks for something that transformers' class does not have.
    """
    given = {**_measured(names), **given}
    for name, known in _PLAIN.items():
        if given.get(name, known[0]) not in known:
            raise ModelError(
                f"the InternViT has {name} {given[name]!r}; expected {' or '.join(known)}"
            )
    if given.get("qk_normalization") and given.get("layer_norm_eps", 1e-6) != _QK_EPS:
        raise ModelError(
            f"the InternViT norms queries and keys with layer_norm_eps {given['layer_norm_eps']};"
            f" transformers' class does it with {_QK_EPS}"
        )
    size, patch = given["image_size"], given["patch_size"]
    return InternVLVisionConfig(
        hidden_size=given["hidden_size"],
        num_hidden_layers=given["num_hidden_layers"],
        num_attention_heads=given["num_attention_heads"],
        intermediate_size=given["intermediate_size"],
        attention_bias=bool(given["qkv_bias"]),
        use_qk_norm=bool(given["qk_normalization"]),
        norm_type=given["norm_type"],
        layer_norm_eps=given.get("layer_norm_eps", 1e-6),
        image_size=[size, size],
        patch_size=[patch, patch],
        # Features are read without a norm behind the last block, as the original has none.
        use_mean_pooling=True,
    )


def _measured(names: Mapping[str, Stored]) -> dict[str, Any]:
    """What the tensors of an InternViT tell of its config.

    Raises:
        ModelError: tensors that every InternViT has are missing, or its positions are no square.
    """
    table, patches = (
        f"embeddings.{name}" for name in ("position_embedding", "patch_embedding.weight")
    )
    if missing := sorted({table, patches, _QKV, _FC1} - names.keys()):
        raise ModelError(
            f"the InternViT lacks {', '.join(missing)}; expected the weights of InternVL's"
            " vision_model"
        )
    patch, positions = names[patches].shape[-1], names[table].shape[1] - 1
    side = isqrt(positions)
    if side**2 != positions:
        raise ModelError(
            f"the InternViT has {positions} positions besides its class token; expected a square"
            " grid, such as 32 x 32"
        )
    layers = {match[1] for name in names if (match := _LAYER.match(name))}
    return {
        "hidden_size": names[_FC1].shape[1],
        "intermediate_size": names[_FC1].shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": _HEADS,
        "image_size": side * patch,
        "patch_size": patch,
        "qkv_bias": _QKV.replace("weight", "bias") in names,
        "qk_normalization": f"{_FIRST}attn.q_norm.weight" in names,
        "norm_type": "layer_norm" if f"{_FIRST}norm1.bias" in names else "rms_norm",
    }


def internvit_pieces(names: dict[str, Stored]) -> list[Piece]:
    """Tensors of an InternViT under transformers' names, by their original ones.

    Raises:
        ModelError: a tensor has a name that is none of InternViT's.
    """
    pieces: list[Piece] = []
    for name, stored in names.items():
        layer = _LAYER.match(name)
        inner = name if layer is None else name[layer.end() :]
        start = "" if layer is None else f"encoder.layer.{layer[1]}."
        module, _, kind = inner.rpartition(".")
        if module == "attn.qkv":
            pieces += _thirds(stored, f"{start}attention.{FUSED}.{kind}")
        elif inner in _NAMES:
            pieces.append(stored.as_piece(start + _NAMES[inner]))
        elif module in _NAMES:
            pieces.append(stored.as_piece(f"{start}{_NAMES[module]}.{kind}"))
        else:
            raise ModelError(
                f"the tensor {stored.name} is none of an InternViT's; expected the weights of"
                " InternVL's vision_model"
            )
    return pieces


def aimv2_pieces(names: dict[str, Stored]) -> list[Piece]:
    """Tensors of an AIMv2 under transformers' names, by their original ones.

    Raises:
        ModelError: a tensor has a name that is none of the original layout.
    """
    pieces: list[Piece] = []
    for name, stored in names.items():
        new = transformers_name(name)
        if FUSED in new:
            pieces += _thirds(stored, new)
        elif new == TABLE:
            pieces.append(stored.as_piece(new, _first, stored.shape[1:]))
        else:
            pieces.append(stored.as_piece(new))
    return pieces


def _thirds(stored: Stored, name: str) -> list[Piece]:
    """Queries, keys and values of a fused tensor; `name` has `FUSED` for which of them."""
    shape = (stored.shape[0] // 3, *stored.shape[1:])
    change: list[Callable[[torch.Tensor], torch.Tensor]] = [
        partial(_third, number) for number in range(3)
    ]
    return [
        stored.as_piece(name.replace(FUSED, part), made, shape)
        for part, made in zip(SPLIT, change, strict=True)
    ]


def _third(number: int, fused: torch.Tensor) -> torch.Tensor:
    return fused.chunk(3)[number]


def _first(batched: torch.Tensor) -> torch.Tensor:
    return batched[0]


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _pooling(expected: dict[str, tuple[int, ...]]) -> set[str]:
    return {name for name in expected if name.split(".")[0] in ("head", "pooler")}


def _told(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(list(shape))
