"""The `sailvl` layout: SAIL-VL2's names of config and tensors, with code of ours that runs on
today's transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sailvit.core.errors import ModelError
from sailvit.core.layout import VisualLayout
from sailvit.core.run import write_json
from sailvit.interop.export.card import Card, model_example, write_card
from sailvit.interop.export.cases import Watching
from sailvit.interop.export.hf import WATCHING, hf_problems, whole_config, write_rest
from sailvit.interop.export.trained import Trained, language_tensors, pieces
from sailvit.interop.layouts.chat import MEAN, PLACEHOLDER, STD, WRAP
from sailvit.interop.weights import write_weights
from sailvit.models.structure.mllm import MLLM
from sailvit.models.towers.original_aimv2 import config_for_original, to_original

_CONNECTOR = {"norm": "0", "up": "1", "down": "3"}
_CODE = ("configuration_sailvl.py", "modeling_sailvl.py")
_MODEL = "modeling_sailvl.SailVLModel"


def sailvl_problems(mllm: MLLM, layout: VisualLayout) -> list[str]:
    """What keeps the layout from holding a model, a sentence each."""
    tower, connector = mllm.tower, mllm.connector.config
    config = tower.model.config
    conditions = {
        "the tower is no AIMv2": config.model_type == "aimv2_vision_model",
        "images are in native resolution; train with model.image.mode: fixed or tiled": (
            layout.native is None
        ),
        "train with model.connector.kind: merge_mlp": connector.kind == "merge_mlp",
        f"train with model.connector.hidden: {connector.language_width}": (
            connector.hidden == connector.language_width
        ),
        "train without model.feature_layer and model.feature_norm": tower.choice.plain,
        f"train with model.image.wrap: [{', '.join(WRAP)}]": layout.wrap == WRAP,
        "train with model.image.newline: true": layout.newline,
        "train with model.image.thumbnail: true": layout.thumbnail,
        f"train with model.placeholder: {PLACEHOLDER}": layout.placeholder == PLACEHOLDER,
        f"train with model.image.mean: {list(MEAN)} and std: {list(STD)}": (
            tuple(tower.preprocessing.mean) == MEAN and tuple(tower.preprocessing.std) == STD
        ),
    }
    return [*hf_problems(mllm), *(text for text, holds in conditions.items() if not holds)]


def write_sailvl(trained: Trained, folder: Path) -> Watching:
    """Write the whole model under SAIL-VL2's names.

    Raises:
        ModelError: the model does not fit; every condition that fails is named.
    """
    bundle = trained.bundle
    if found := sailvl_problems(bundle.mllm, bundle.layout):
        told = "".join(f"\n  {problem}" for problem in found)
        raise ModelError(f"SAIL-VL2's layout cannot hold this model:{told}")
    vision = to_original(trained.tower.state_dict())
    tensors = {f"vision_model.{name}": tensor for name, tensor in vision.items()}
    for name, tensor in trained.connector.state_dict().items():
        layer, _, kind = name.partition(".")
        tensors[f"mlp1.{_CONNECTOR[layer]}.{kind}"] = tensor
    for name, tensor in language_tensors(trained.language).items():
        inner = name.replace("language_model.", "model.", 1)
        tensors[f"language_model.{inner}"] = tensor
    write_weights(folder, pieces(tensors, trained.dtype))
    write_json(folder / "config.json", _config(trained))
    write_rest(trained, folder, *_CODE)
    example = model_example(remote=True)
    card = Card("image-text-to-text", "A SAIL-VL2", example, ("sailvl", "custom_code"))
    write_card(trained, card, folder)
    return WATCHING


def _config(trained: Trained) -> dict[str, Any]:
    whole, layout = whole_config(trained), trained.bundle.layout
    vision, language = config_for_original(trained.tower.config), whole.pop("text_config")
    connector = trained.connector.config
    return {
        **whole,
        "architectures": ["SailVLModel"],
        "model_type": "sailvl",
        "auto_map": {
            "AutoConfig": "configuration_sailvl.SailVLConfig",
            **dict.fromkeys(
                ("AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText"), _MODEL
            ),
        },
        "vision_config": {**vision, "model_type": "aimv2", "dtype": whole["dtype"]},
        "llm_config": language,
        "template": "sailvl-chat",
        "select_layer": -1,
        "ps_version": "v1" if connector.column_major else "v2",
        "downsample_ratio": 1 / connector.merge,
        "force_image_size": layout.tile_size,
        "dynamic_image_size": layout.max_tiles > 1,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": layout.max_tiles,
        "use_thumbnail": layout.thumbnail,
    }
