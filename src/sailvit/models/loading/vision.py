"""The vision model of a checkpoint: alone, or a submodule of a dual encoder or a multimodal model.

No list of names decides. A submodule is found by building the whole model without weights: it is
the one that was made of the vision half of the config.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_MAPPING,
    AutoModel,
    PretrainedConfig,
    PreTrainedModel,
)

from sailvit.core.errors import ModelError
from sailvit.models.guards.errors import Loading
from sailvit.models.guards.roles import refuse_inputs
from sailvit.models.packing.tower_attention import TOWER
from sailvit.models.towers.families import FAMILIES

_HALVES = ("vision_config", "image_config", "encoder")
"""Where configs of several models keep the one that sees: most of them, FLAVA, encoder-decoders."""


@dataclass(frozen=True)
class VisionModel:
    """A vision model that can be made, filled from its checkpoint, and saved by itself."""

    config: Any
    """Its own config."""
    kind: type[PreTrainedModel] | None
    """Its class; None where only the code beside the weights knows it."""
    whole: Any
    """The checkpoint's config: the same one where the checkpoint holds nothing else."""
    path: str = ""
    """The submodule's name in the whole model, where that one was built to find it."""

    @property
    def inside(self) -> bool:
        """Whether the checkpoint holds more than this model."""
        return self.config is not self.whole

    @property
    def plain(self) -> bool:
        """Whether `AutoModel` makes it from its config."""
        return self.kind is None or has_auto_model(self.config)

    @property
    def size(self) -> int | None:
        """Side of its own tile, in pixels; None where its config has none, or no square."""
        given = getattr(self.config, "image_size", None)
        sides = set(given) if isinstance(given, list | tuple) else {given}
        side = sides.pop()
        return side if isinstance(side, int) and not sides else None

    @property
    def attention(self) -> str | None:
        """The attention to load it with: ours where the class would take torch's by default, so
        that both give the same bits; None leaves the class its own.
        """
        return TOWER if self.kind is None or self.kind._supports_sdpa else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the run reports of a tower that was taken out of a larger model, and of one that
        `AutoModel` does not know.
        """
        name, found = self.config.model_type, []
        if self.inside:
            found.append(
                f"the tower is the {name} inside a {self.whole.model_type}: it alone is read,"
                " trained and saved"
            )
            # As LLaVA, VipLLaVA and Granite's vision models say it.
            layer = getattr(self.whole, "vision_feature_layer", None)
            if layer not in (None, -1):
                found.append(
                    f"the {self.whole.model_type} reads its tower at layer {layer}"
                    " (vision_feature_layer): set model.feature_layer to that for the features that"
                    " it was trained on"
                )
        if self.kind is not None and not self.plain and not _remote(self.whole):
            found.append(
                f"AutoModel knows no {name}: load the saved tower by its own class,"
                f" {self.kind.__module__}.{self.kind.__name__}.from_pretrained"
            )
        if name in FAMILIES and FAMILIES[name].note:
            found.append(FAMILIES[name].note)
        return tuple(found)

    def make(self, *, trust_remote_code: bool = False, **options: Any) -> PreTrainedModel:
        """The model with fresh weights, on the device that torch's context names."""
        if self.kind is None or self.plain:
            made: PreTrainedModel = AutoModel.from_config(
                self.config, trust_remote_code=trust_remote_code, **options
            )
            return made
        return self.kind._from_config(self.config, **options)


def find_vision(whole: Any, source: str, *, trust_remote_code: bool = False) -> VisionModel:
    """The vision model in a checkpoint of config `whole`.

    Raises:
        ModelError: the checkpoint holds no vision model that can be made, or one that reads
            something else than tiles.
    """
    half = next((given for name in _HALVES if (given := getattr(whole, name, None))), None)
    if half is None:
        return _alone(whole, source)
    if not isinstance(half, PretrainedConfig):
        raise ModelError(
            f"the tower {source!r} is a {whole.model_type} without a vision model that can be"
            " loaded by itself; name a checkpoint of a ViT"
        )
    with Loading("tower", source):
        kind = None if _remote(whole) else _known(half)
        if kind is None:
            _, path, part = locate(whole, half, trust_remote_code=trust_remote_code)
            if _remote(whole):
                # So that saving copies the code beside the weights and AutoModel finds it there.
                type(part).register_for_auto_class("AutoModel")
                type(part.config).register_for_auto_class()
            found = VisionModel(part.config, type(part), whole, path)
        else:
            found = VisionModel(_prepared(half), kind, whole)
        assert found.kind is not None
        refuse_inputs(found.kind.forward, half.model_type, None, f"the tower {source!r}")
    return found


def locate(
    whole: Any, half: Any, *, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, str, PreTrainedModel]:
    """The whole model on the meta device, and name and submodule of what was made of `half`.

    Raises:
        ModelError: transformers has no such model, or none of its submodules is a model by
            itself.
    """
    kind = _known(whole) or _entry(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, whole) or own_class(whole)
    # Only names are looked for: weights would take memory and time.
    with torch.device("meta"):
        if _remote(whole):
            model = AutoModel.from_config(whole, trust_remote_code=trust_remote_code)
        elif kind is not None:
            model = kind._from_config(whole)
        else:
            raise ModelError(
                f"the tower is the vision half of a {whole.model_type}, for which transformers has"
                f" no model (AutoModel knows no {whole.model_type}); name a checkpoint of a ViT"
            )
    for path, part in model.named_modules():
        # Outermost first: what encloses the blocks comes before the encoder inside it.
        if path and isinstance(part, PreTrainedModel) and _same(part.config, half):
            return model, path, part
    raise ModelError(
        f"the tower is a {whole.model_type} whose vision half ({half.model_type}) is no model that"
        " can be saved and loaded by itself; name a checkpoint of a ViT"
    )


def has_auto_model(config: Any) -> bool:
    """Whether `AutoModel` has a class for this config."""
    return _known(config) is not None


def own_class(config: Any) -> type[PreTrainedModel] | None:
    """The class that the config of a saved model names and transformers has beside the config's;
    None where there is none.
    """
    # So transformers names its files: configuration_x.py beside modeling_x.py.
    module = type(config).__module__.replace(".configuration_", ".modeling_")
    names = getattr(config, "architectures", None) or []
    if not (names and module.startswith("transformers.models.")):
        return None
    if importlib.util.find_spec(module) is None:
        return None
    found = getattr(importlib.import_module(module), names[0], None)
    return found if isinstance(found, type) and issubclass(found, PreTrainedModel) else None


def _alone(config: Any, source: str) -> VisionModel:
    """The model of a checkpoint that holds no other."""
    config = _prepared(config)
    if _remote(config):
        return VisionModel(config, None, config)
    with Loading("tower", source):
        kind = _known(config) or own_class(config)
        if kind is None:
            raise ModelError(
                f"the tower {source!r} is a {config.model_type}, for which transformers has no"
                f" model by itself (AutoModel knows no {config.model_type}); name a checkpoint of"
                " a ViT"
            )
        refuse_inputs(kind.forward, config.model_type, None, f"the tower {source!r}")
    return VisionModel(config, kind, config)


def _prepared(config: Any) -> Any:
    """The config with the settings that features of its family need."""
    family = FAMILIES.get(config.model_type)
    if family is None or not family.settings:
        return config
    # A copy, as the config of the whole model may hold this one.
    prepared = copy.deepcopy(config)
    for name, value in family.settings.items():
        setattr(prepared, name, value)
    return prepared


def _same(config: Any, half: Any) -> bool:
    """Whether a submodule's config is the vision half: models may hold a copy of it."""
    return config is half or (type(config) is type(half) and config.to_dict() == half.to_dict())


def _remote(config: Any) -> bool:
    return bool(getattr(config, "auto_map", None))


def _known(config: Any) -> type[PreTrainedModel] | None:
    return _entry(MODEL_MAPPING, config)


def _entry(mapping: Any, config: Any) -> type[PreTrainedModel] | None:
    found = mapping.get(type(config), None)
    kind: type[PreTrainedModel] | None = found[0] if isinstance(found, tuple) else found
    return kind
