"""Multimodal checkpoints of transformers' own classes: LLaVA, InternVL, LFM2-VL, AyaVision,
Mistral3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PretrainedConfig

from sailvit.core.errors import ModelError
from sailvit.interop.reading.connectors import ConnectorFacts, plan_connector
from sailvit.interop.reading.files import read_optional
from sailvit.interop.reading.languages import plan_language
from sailvit.interop.reading.plans import ModelPlan, Planned, Refusal
from sailvit.interop.reading.stored import Names
from sailvit.interop.reading.towers import plan_tower
from sailvit.models.guards.errors import Loading
from sailvit.models.languages.text_model import text_config
from sailvit.models.towers.families import FAMILIES, Family

_LINEAR = {"linear_1": "up", "linear_2": "down"}
_PROJECTOR = "multi_modal_projector."
_WRAPS = {
    "internvl": ("<img>", "</img>"),
    "lfm2_vl": ("<|image_start|>", "<|image_end|>"),
}
_PER_TILE = (
    "its processor writes tokens between the tiles of an image, which training here does not:"
    " prompts are the same for images of one tile"
)
_NOTES = {
    "lfm2_vl": (
        "its processor keeps the shape of an image; features are the same for square images",
        _PER_TILE,
    ),
    "aya_vision": (
        _PER_TILE,
        "its class scores tokens without the language's logit_scale; the language's new config"
        " has logit_scale 1, so that its scores are the same",
    ),
    "mistral3": (
        "its processor keeps the shape of an image and writes a token after each row of"
        " patches; tower and connector are exact, prompts differ",
    ),
    "llava_next": (
        "its class puts a learnt token after each row of patches; tower and connector are exact,"
        " prompts differ",
    ),
}


@dataclass(frozen=True)
class _Selection:
    """Which of the tower's tokens the connector reads."""

    layer: int
    """`model.feature_layer` of a recipe."""
    reason: str = ""
    """Why it cannot be said; empty where it can."""


def is_native(config: dict[str, Any]) -> bool:
    """Whether a config.json is one of these classes."""
    return config.get("model_type") in _FACTS


def native_types() -> tuple[str, ...]:
    """The `model_type`s of these classes."""
    return tuple(_FACTS)


def plan_native(given: dict[str, Any], names: Names, source: str, folder: Path) -> ModelPlan:
    """The parts of a checkpoint of one of these classes.

    Raises:
        ModelError: its config cannot be read.
    """
    with Loading("language", source):
        config = AutoConfig.from_pretrained(folder)
    vision, kind = config.vision_config, str(given["model_type"])
    language = text_config(config, source)
    selection = _selection(config, kind)
    connector: Planned = Refusal(selection.reason)
    if not selection.reason:
        connector = plan_connector(
            names,
            _prefix(names),
            _FACTS[kind](config),
            tower_width=int(vision.hidden_size),
            language_width=int(language.hidden_size),
        )
    said = [bool(getattr(each, "tie_word_embeddings", False)) for each in (config, language)]
    if kind == "aya_vision":
        language.logit_scale = 1.0
    processor = _image_processor(folder)
    return ModelPlan(
        layout=f"transformers' {kind}",
        tower=plan_tower(names, vision, source),
        connector=connector,
        language=plan_language(names, language, source, said),
        preprocessor=_preprocessor(processor, vision),
        settings=_settings(config, kind, processor, selection, folder),
        notes=_NOTES.get(kind, ()),
    )


def _llava(config: Any) -> ConnectorFacts:
    return ConnectorFacts("mlp", _LINEAR, 1, {"activation": config.projector_hidden_act})


def _internvl(config: Any) -> ConnectorFacts:
    merge = int(1 / config.downsample_ratio)
    modules = {"layer_norm": "norm", **_LINEAR}
    return ConnectorFacts("merge_mlp", modules, merge, {"activation": config.projector_hidden_act})


def _lfm2(config: Any) -> ConnectorFacts:
    settings = {"activation": config.projector_hidden_act}
    if not config.projector_use_layernorm:
        return ConnectorFacts("mlp", _LINEAR, config.downsample_factor, settings)
    modules = {"layer_norm": "norm", **_LINEAR}
    return ConnectorFacts("merge_mlp", modules, config.downsample_factor, settings)


def _aya(config: Any) -> ConnectorFacts:
    modules = {"layernorm": "norm", **_LINEAR}
    settings = {"eps": config.adapter_layer_norm_eps}
    return ConnectorFacts("swiglu", modules, config.downsample_factor, settings)


def _mistral(config: Any) -> ConnectorFacts:
    modules = {"norm": "norm", "patch_merger.merging_layer": "merge", **_LINEAR}
    settings = {"eps": config.text_config.rms_norm_eps, "activation": config.projector_hidden_act}
    return ConnectorFacts("norm_merge_mlp", modules, config.spatial_merge_size, settings)


_FACTS: Mapping[str, Callable[[Any], ConnectorFacts]] = {
    "llava": _llava,
    "llava_next": _llava,
    "internvl": _internvl,
    "lfm2_vl": _lfm2,
    "aya_vision": _aya,
    "mistral3": _mistral,
}
"""By `model_type`."""


def _prefix(names: Names) -> str:
    """What the connector's names begin with: older files have it without `model.`."""
    found = next((name for name in names if _PROJECTOR in name), _PROJECTOR)
    return found[: found.index(_PROJECTOR)] + _PROJECTOR


def _selection(config: Any, kind: str) -> _Selection:
    """The layer and the tokens that the connector reads, as our tower gives them."""
    if kind == "lfm2_vl":
        return _Selection(-1)
    layer = config.vision_feature_layer
    if not isinstance(layer, int):
        return _Selection(-1, f"it reads several layers of the tower ({layer}), not one")
    blocks = int(config.vision_config.num_hidden_layers)
    if layer in (-1, blocks) and kind != "internvl":
        # What these classes call -1 stands before the final norm in most towers; ours is behind.
        layer = blocks
    prefix = _prefix_tokens(config.vision_config)
    dropped = getattr(config, "vision_feature_select_strategy", "full") == "default"
    if dropped != (prefix == 1):
        return _Selection(
            layer,
            f"vision_feature_select_strategy is {config.vision_feature_select_strategy!r}, and"
            f" {config.vision_config.model_type} has {prefix} tokens before its patches, so it"
            " reads other tokens than the patches",
        )
    return _Selection(layer)


def _prefix_tokens(vision: PretrainedConfig) -> int:
    """Tokens before the patches of a tower."""
    listed = FAMILIES.get(vision.model_type)
    if listed is not None:
        return listed.prefix(vision)
    with torch.device("meta"):
        model = AutoModel.from_config(vision)
    held = [
        name
        for name, _ in model.named_parameters()
        if name.endswith(("cls_token", "class_embedding"))
    ]
    return Family().prefix(vision) + len(held)


def _image_processor(folder: Path) -> dict[str, Any]:
    """The image processor's config, from its own file or from the whole processor's."""
    whole = read_optional(folder / "processor_config.json")
    nested = whole.get("image_processor")
    found = nested if isinstance(nested, dict) else {}
    return {**read_optional(folder / "preprocessor_config.json"), **found}


def _preprocessor(processor: Mapping[str, Any], vision: Any) -> dict[str, Any]:
    """Side, mean and std of the tower's tiles."""
    size = getattr(vision, "image_size", None)
    if isinstance(size, list | tuple):
        size = size[0]
    if size is None:
        # SigLIP 2 knows its number of patches instead.
        size = round(vision.num_patches**0.5) * vision.patch_size
    missing = [name for name in ("image_mean", "image_std") if name not in processor]
    if missing:
        raise ModelError(
            f"the model's preprocessor_config.json or processor_config.json gives no"
            f" {' and no '.join(missing)}; expected the files of a whole model: download them"
        )
    return {"size": size, **{name: processor[name] for name in ("image_mean", "image_std")}}


def _settings(
    config: Any, kind: str, processor: Mapping[str, Any], selection: _Selection, folder: Path
) -> dict[str, Any]:
    tiled = kind == "internvl" and processor.get("crop_to_patches", False)
    image: dict[str, Any] = {"max_tiles": processor.get("max_patches", 12) if tiled else 1}
    if kind in _WRAPS:
        image["wrap"] = list(_WRAPS[kind])
    settings: dict[str, Any] = {"feature_layer": selection.layer, "image": image}
    token = _token(folder, config.image_token_id)
    return settings if token is None else {"placeholder": token, **settings}


def _token(folder: Path, wanted: int) -> str | None:
    """The token of an id, from the tokenizer's files."""
    whole = read_optional(folder / "tokenizer.json")
    added = {each["id"]: str(each["content"]) for each in whole.get("added_tokens", ())}
    if wanted not in added:
        vocabulary = whole.get("model", {}).get("vocab", {})
        known = vocabulary if isinstance(vocabulary, dict) else {}
        added |= {number: token for token, number in known.items() if number == wanted}
    return added.get(wanted)
