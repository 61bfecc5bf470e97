"""Whole models as `sailvit export --to hf` writes them, back as three parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from sailvit.core.errors import ModelError
from sailvit.interop.reading.connectors import ConnectorFacts, plan_connector
from sailvit.interop.reading.files import read_optional
from sailvit.interop.reading.languages import plan_language
from sailvit.interop.reading.plans import ModelPlan
from sailvit.interop.reading.stored import Names
from sailvit.interop.reading.towers import plan_tower
from sailvit.models.guards.errors import Loading

_LAYERS = {name: name for name in ("norm", "merge", "up", "down")}
_BYTES = 255.0


def is_own(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is an export's."""
    return config.get("model_type") == "sailvit_mllm"


def plan_own(given: Mapping[str, Any], names: Names, source: str, folder: Path) -> ModelPlan:
    """The parts of an export.

    Raises:
        ModelError: its config cannot be read, or its pixels are divided by another number than
            255.
    """
    image, connector = given["image"], given["connector"]
    images = read_optional(folder / "preprocessor_config.json")
    if images.get("rescale_divisor", _BYTES) != _BYTES:
        raise ModelError(
            f"the export in {source} divides bytes by {images['rescale_divisor']}, which parts"
            " cannot say; take the parts of the run that it came from"
        )
    facts = ConnectorFacts(
        connector["kind"],
        _LAYERS,
        connector["merge"],
        {name: connector[name] for name in ("activation", "bias", "eps", "column_major")},
    )
    tied = bool(given["tie_word_embeddings"])
    return ModelPlan(
        layout="sailvit export, hf",
        tower=plan_tower(names, _config(given["vision_config"], source), source),
        connector=plan_connector(
            names,
            "model.multi_modal_projector.",
            facts,
            tower_width=connector["tower_width"],
            language_width=connector["language_width"],
        ),
        language=plan_language(names, _config(given["text_config"], source), source, [tied, tied]),
        preprocessor={
            "size": image["size"],
            **{name: images[name] for name in ("image_mean", "image_std")},
        },
        settings=_settings(image, images, folder, connector["merge"]),
    )


def _cutting(images: Mapping[str, Any], merge: int) -> dict[str, Any]:
    """How images become tiles, as settings of `model.image`."""
    if native := images.get("native"):
        # The export counts tiles, each of `merge` x `merge` patches; a recipe counts patches.
        least, most = (native[name] * merge**2 for name in ("least", "most"))
        return {"mode": "native", "min_patches": least, "max_patches": most}
    return {"max_tiles": images["max_tiles"], "thumbnail": images["use_thumbnail"]}


def _settings(
    image: Mapping[str, Any], images: Mapping[str, Any], folder: Path, merge: int
) -> dict[str, Any]:
    """Settings of a recipe's model section."""
    layers = image["layers"]
    return {
        "placeholder": read_optional(folder / "processor_config.json")["image_token"],
        "feature_layer": layers[0] if len(layers) == 1 else layers,
        "feature_join": image["join"],
        "feature_norm": True if image.get("norm") else None if image["last_normed"] else False,
        "image": {
            **_cutting(images, merge),
            "wrap": image["wrap"],
            "newline": image["newline"],
        },
    }


def _config(given: Mapping[str, Any], source: str) -> PretrainedConfig:
    values = dict(given)
    with Loading("language", source):
        made: PretrainedConfig = AutoConfig.for_model(values.pop("model_type"), **values)
    return made
