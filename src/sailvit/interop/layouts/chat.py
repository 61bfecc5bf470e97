"""InternVL's original layout, which SAIL-VL and SAIL-VL2 share: `vision_model`, `mlp1`,
`language_model`. Their own code is not run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig

from sailvit.core.errors import ModelError
from sailvit.interop.reading.connectors import ConnectorFacts, plan_connector
from sailvit.interop.reading.languages import plan_language
from sailvit.interop.reading.plans import ModelPlan, Planned, Refusal
from sailvit.interop.reading.prompts import chat_template
from sailvit.interop.reading.selection import tile_side
from sailvit.interop.reading.stored import Names, Stored
from sailvit.interop.reading.towers import (
    aimv2_pieces,
    internvit_config,
    internvit_pieces,
    plan_renamed,
)
from sailvit.models.towers.original_aimv2 import is_original, original_config

_TYPES = ("internvl_chat", "sailvl")
_VISION, _CONNECTOR = "vision_model.", "mlp1."
_INTERNVIT = "intern_vit_6b"
_LAYERS = {"0": "norm", "1": "up", "3": "down"}
"""Our names of the connector's layers; 2 is the activation."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WRAP = ("<img>", "</img>")
PLACEHOLDER = "<IMG_CONTEXT>"


def is_chat(config: dict[str, Any]) -> bool:
    """Whether a config.json is one of this layout."""
    return config.get("model_type") in _TYPES and "llm_config" in config


def plan_chat(config: dict[str, Any], names: Names, source: str, folder: Path) -> ModelPlan:
    """The parts of a checkpoint in this layout.

    Raises:
        ModelError: a config lacks what the parts cannot be made without.
    """
    del folder
    vision, language = config["vision_config"], _language_config(config["llm_config"])
    template = chat_template(config.get("template"), config.get("system_message"))
    unknown = (
        f"its conversation format {config.get('template')!r} is not known here; prompts follow"
        " the tokenizer's own chat template, so compare one with the model's"
    )
    tower = _tower(vision, names)
    # The whole model's setting and the language's often differ; the tensors decide.
    said = [bool(each.get("tie_word_embeddings", False)) for each in (config["llm_config"], config)]
    return ModelPlan(
        layout="InternVL's chat layout",
        tower=tower,
        connector=_connector(config, names, tower),
        language=language
        if isinstance(language, Refusal)
        else plan_language(names, language, source, said),
        preprocessor={
            "size": config.get("force_image_size") or _side(tower),
            "image_mean": MEAN,
            "image_std": STD,
        },
        settings=_settings(config),
        chat_template=template,
        notes=() if template is not None else (unknown,),
    )


def _connector(config: dict[str, Any], names: Names, tower: Planned) -> Planned:
    vision = config["vision_config"] if isinstance(tower, Refusal) else tower.config.to_dict()
    version, merge = config.get("ps_version", "v1"), _merge(config)
    if version not in ("v1", "v2"):
        return Refusal(f"ps_version is {version!r}; expected v1 or v2")
    return plan_connector(
        names,
        _CONNECTOR,
        ConnectorFacts("merge_mlp", _LAYERS, merge, {"column_major": version == "v1"}),
        tower_width=vision["hidden_size"],
        language_width=config["llm_config"]["hidden_size"],
    )


def _tower(vision: dict[str, Any], names: Names) -> Planned:
    inside: dict[str, Stored] = {
        name.removeprefix(_VISION): stored
        for name, stored in names.items()
        if name.startswith(_VISION)
    }
    used = {stored.name for stored in inside.values()}
    if is_original(vision):
        return plan_renamed(original_config(vision), aimv2_pieces(inside), used)
    if vision.get("model_type", _INTERNVIT) != _INTERNVIT:
        return Refusal(
            f"it is a {vision['model_type']}; expected AIMv2's original layout or InternViT"
        )
    return plan_renamed(internvit_config(vision, inside), internvit_pieces(inside), used)


def _side(tower: Planned) -> int | None:
    """Height and width of the tower's own tiles, in pixels; None where there is no tower."""
    return None if isinstance(tower, Refusal) else tile_side(tower.config)


def _language_config(given: dict[str, Any]) -> PretrainedConfig | Refusal:
    """Transformers' config of the language, which has classes for most."""
    kind = given.get("model_type")
    if kind not in CONFIG_MAPPING:
        return Refusal(
            f"it is a {kind}, which transformers has no class for: it needs code of its own"
        )
    inner = {name: value for name, value in given.items() if name != "model_type"}
    made: PretrainedConfig = AutoConfig.for_model(kind, **inner)
    return made


def _merge(config: dict[str, Any]) -> int:
    ratio = config.get("downsample_ratio", 0.5)
    merge: int = round(1 / ratio)
    # Files hold 0.5 or 0.333..., so the ratio is compared and not the number of patches.
    if abs(merge * ratio - 1) > 1e-3:
        raise ModelError(
            f"downsample_ratio is {ratio}; expected 1 / n, as n x n patches become one token"
        )
    return merge


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """The recipe's settings."""
    # Defaults are those of the configs' own class, which files leave out.
    most = config.get("max_dynamic_patch", 12) if config.get("dynamic_image_size", True) else 1
    return {
        "placeholder": PLACEHOLDER,
        "feature_layer": config.get("select_layer", -1),
        "image": {
            "max_tiles": most,
            "thumbnail": bool(config.get("use_thumbnail", True)),
            "wrap": list(WRAP),
            # SAIL-VL's code ends every image with a line break; InternVL's writes what is said.
            "newline": config.get("template") == "sailvl-chat",
        },
    }
