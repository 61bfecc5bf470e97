"""A model whose files have SAIL-VL2's names: `vision_model`, `mlp1`, `language_model`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from transformers import GenerationConfig

from .configuration_sailvl import SailVLConfig
from .modeling_sailvit import SailvitForConditionalGeneration

_TOWER = "model.vision_tower."
_MODULES = {
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
_CONNECTOR = {"0": "norm", "1": "up", "3": "down"}
_HUB = ("revision", "token", "cache_dir", "force_download", "local_files_only")
"""Arguments that say what is downloaded, and from where to where."""


class SailVLModel(SailvitForConditionalGeneration):
    """The whole model; `chat` answers as SAIL-VL2's own class does."""

    config_class = SailVLConfig

    @classmethod
    def from_pretrained(cls, path: Any, *args: Any, config: Any = None, **kwargs: Any) -> Any:
        """The model of a folder or hub id; only safetensors are read.

        Raises:
            ValueError: the files lack some of its weights.
        """
        hub = {name: kwargs.pop(name) for name in _HUB if name in kwargs}
        folder = Path(path)
        if not folder.is_dir():
            kept = ["*.safetensors", "*.json"]
            folder = Path(snapshot_download(str(path), allow_patterns=kept, **hub))
        state: dict[str, torch.Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            state |= dict(_renamed(load_file(file)))
        config = config or SailVLConfig.from_pretrained(folder)
        for unused in ("trust_remote_code", "use_safetensors", "code_revision"):
            kwargs.pop(unused, None)
        told = kwargs.pop("output_loading_info", False)
        model, found = super().from_pretrained(
            None, *args, config=config, state_dict=state, output_loading_info=True, **kwargs
        )
        if missing := sorted(found["missing_keys"]):
            raise ValueError(
                f"{path} lacks {len(missing)} of the model's weights ({', '.join(missing[:3])}), "
                "which would be random; expected all of them: fetch its safetensors again"
            )
        model.generation_config = GenerationConfig.from_pretrained(folder)
        return (model, found) if told else model


def _renamed(state: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors under transformers' names, which those of a saved copy have already."""
    for name, tensor in state.items():
        part, _, inner = name.partition(".")
        if part in ("model", "lm_head"):
            yield name, tensor
        elif part == "vision_model":
            yield from _tower(inner, tensor)
        elif part == "mlp1":
            layer, _, kind = inner.partition(".")
            yield f"model.multi_modal_projector.{_CONNECTOR[layer]}.{kind}", tensor
        elif inner.startswith("lm_head."):
            yield inner, tensor
        else:
            yield f"model.language_model.{inner.removeprefix('model.')}", tensor


def _tower(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    if name == "preprocessor.pos_embed":
        yield f"{_TOWER}embeddings.position_embedding.weight", tensor[0]
        return
    block = re.match(r"trunk\.blocks\.(\d+)\.", name)
    start = "" if block is None else f"encoder.layers.{block[1]}."
    inner = name if block is None else name[block.end() :]
    if inner == "attn.qkv.weight":
        for letter, third in zip("qkv", tensor.chunk(3), strict=True):
            # A copy, as thirds of one matrix would share its memory when they are saved.
            yield f"{_TOWER}{start}attention.{letter}_proj.weight", third.clone()
        return
    module, _, kind = inner.rpartition(".")
    yield f"{_TOWER}{start}{_MODULES[module]}.{kind}", tensor
