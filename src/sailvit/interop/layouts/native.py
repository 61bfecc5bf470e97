"""Multimodal checkpoints of transformers' own classes: LLaVA, LLaVA-NeXT, LLaVA-OneVision,
VipLLaVA, InternVL, LFM2-VL, AyaVision, Mistral3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from sailvit.core.errors import ModelError
from sailvit.interop.reading.connectors import ConnectorFacts, plan_connector
from sailvit.interop.reading.files import read_optional
from sailvit.interop.reading.gate import PROJECTOR, connector_problem, projector_problem
from sailvit.interop.reading.languages import plan_language
from sailvit.interop.reading.plans import ModelPlan, Planned, Refusal
from sailvit.interop.reading.selection import Selection, select, tile_side
from sailvit.interop.reading.stored import Names
from sailvit.interop.reading.towers import plan_tower
from sailvit.models.guards.errors import ForeignErrors
from sailvit.models.languages.text_model import text_config

AROUND = "sailvit"
"""Key of config.json for what an export writes around images, `wrap` and `newline` of
`model.image`: the classes ignore it, and only the chat template knows it otherwise."""
_LINEAR = {"linear_1": "up", "linear_2": "down"}
_WRAPS = {
    "internvl": ("<img>", "</img>"),
    "lfm2_vl": ("<|image_start|>", "<|image_end|>"),
}
_BETWEEN = ("llava_next", "llava_onevision")
"""Classes that put learnt tokens between those of their connector, which is LLaVA's."""
_PER_TILE = (
    "its processor writes tokens between the tiles of an image, which training here does not:"
    " prompts are the same for images of one tile"
)
_NEWLINE = (
    "its class puts a learnt token after each row of patches; tower and connector are exact,"
    " prompts differ"
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
    "llava_next": (_NEWLINE,),
    "llava_onevision": (
        _NEWLINE,
        "its class also cuts large images into crops and joins their features; here an image is"
        " one tile, or with model.image.max_tiles several by themselves",
    ),
}


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
    with ForeignErrors(f"cannot read the config of {source}"):
        config = AutoConfig.from_pretrained(folder)
    vision, kind = config.vision_config, str(given["model_type"])
    language = text_config(config, source)
    selection = select(config)
    # Releases say it in the whole config or in the language's.
    said = [bool(getattr(each, "tie_word_embeddings", False)) for each in (config, language)]
    if kind == "aya_vision":
        # Cohere2ForCausalLM multiplies by it; AyaVisionForConditionalGeneration 5.23 does not.
        language.logit_scale = 1.0
    processor = _image_processor(folder)
    return ModelPlan(
        layout=f"transformers' {kind}",
        tower=plan_tower(names, vision, source),
        connector=_connector(config, names, selection, int(language.hidden_size)),
        language=plan_language(names, language, source, said),
        preprocessor=_preprocessor(processor, vision),
        settings=_settings(config, kind, processor, selection, folder),
        notes=_NOTES.get(kind, ()),
    )


def _connector(config: Any, names: Names, selection: Selection, width: int) -> Planned:
    """The connector, compared with the class's own."""
    if selection.reason:
        return Refusal(selection.reason)
    kind = config.model_type
    made = plan_connector(
        names,
        _prefix(names),
        _FACTS[kind](config),
        tower_width=len(selection.layers) * int(config.vision_config.hidden_size),
        language_width=width,
    )
    if isinstance(made, Refusal):
        return made
    try:
        # Some put tokens of their own between those of the connector: it is compared alone.
        compare = projector_problem if kind in _BETWEEN else connector_problem
        problem = compare(config, names, made, selection)
    except ModelError as error:
        problem = str(error)
    return Refusal(problem) if problem else made


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


def _vipllava(config: Any) -> ConnectorFacts:
    modules = {"projector_layernorm": "norm", **_LINEAR}
    settings = {"eps": config.projector_layernorm_eps, "activation": config.projector_hidden_act}
    return ConnectorFacts("merge_mlp", modules, 1, settings)


_FACTS: Mapping[str, Callable[[Any], ConnectorFacts]] = {
    "llava": _llava,
    "llava_next": _llava,
    "llava_onevision": _llava,
    "vipllava": _vipllava,
    "internvl": _internvl,
    "lfm2_vl": _lfm2,
    "aya_vision": _aya,
    "mistral3": _mistral,
}
"""By `model_type`."""


def _prefix(names: Names) -> str:
    """What the connector's names begin with: older files have it without `model.`."""
    found = next((name for name in names if PROJECTOR in name), PROJECTOR)
    return found[: found.index(PROJECTOR)] + PROJECTOR


def _image_processor(folder: Path) -> dict[str, Any]:
    """The image processor's config, from its own file or from the whole processor's."""
    # transformers 5 writes one file for the whole processor, where 4 wrote one for each half.
    whole = read_optional(folder / "processor_config.json")
    nested = whole.get("image_processor")
    found = nested if isinstance(nested, dict) else {}
    # The newer file wins, as conversions leave the older one lying beside it.
    return {**read_optional(folder / "preprocessor_config.json"), **found}


def _preprocessor(processor: Mapping[str, Any], vision: Any) -> dict[str, Any]:
    """Side, mean and std of the tower's tiles."""
    missing = [name for name in ("image_mean", "image_std") if name not in processor]
    if missing:
        raise ModelError(
            f"the model's preprocessor_config.json or processor_config.json gives no"
            f" {' and no '.join(missing)}; expected the files of a whole model: download them"
        )
    return {
        "size": tile_side(vision),
        **{name: processor[name] for name in ("image_mean", "image_std")},
    }


def _settings(
    config: Any, kind: str, processor: Mapping[str, Any], selection: Selection, folder: Path
) -> dict[str, Any]:
    tiled = kind == "internvl" and processor.get("crop_to_patches", False)
    image: dict[str, Any] = {"max_tiles": processor.get("max_patches", 12) if tiled else 1}
    image |= _around(config, kind, folder)
    settings: dict[str, Any] = {**selection.settings, "image": image}
    token = _token(folder, config.image_token_id)
    return settings if token is None else {"placeholder": token, **settings}


def _around(config: Any, kind: str, folder: Path) -> dict[str, Any]:
    """What is written around images, as settings of `model.image`."""
    written = getattr(config, AROUND, None)
    if isinstance(written, dict):
        return {name: written[name] for name in ("wrap", "newline") if name in written}
    processor = read_optional(folder / "processor_config.json").get("processor_class")
    # LLaVA's, which serves other classes too, writes no tokens around images.
    return {"wrap": list(_WRAPS[kind])} if kind in _WRAPS and processor != "LlavaProcessor" else {}


def _token(folder: Path, wanted: int) -> str | None:
    """The token of an id, from the tokenizer's files; only added tokens stand for images."""
    whole = read_optional(folder / "tokenizer.json").get("added_tokens", ())
    listed = read_optional(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
    added = {int(number): str(held["content"]) for number, held in listed.items()}
    # Last, as it is the file that the tokenizer is made of.
    added |= {int(held["id"]): str(held["content"]) for held in whole}
    return added.get(wanted)
