"""Layouts of transformers' own multimodal classes, without code of ours: wherever a class holds
tower, connector and language exactly.

Conditions are read off the model and listed before anything is written; the gate decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import is_torchvision_available

from sailvit.core.errors import ModelError
from sailvit.core.layout import VisualLayout
from sailvit.core.recipe import ConnectorKind
from sailvit.interop.export.card import Card, model_example, write_card
from sailvit.interop.export.cases import Watching, takes_patches
from sailvit.interop.export.native_processor import write_processor
from sailvit.interop.export.trained import Trained, language_tensors, pieces, under
from sailvit.interop.weights import write_weights
from sailvit.models.structure.mllm import MLLM

_SWITCH = "tie_last_hidden_states"
"""transformers' setting for which of the two `hidden_states[-1]` is; most towers give it before
their final norm."""
_LINEAR = {"up": "linear_1", "down": "linear_2"}
_WATCHING = Watching(
    modules={"features": "model.vision_tower", "visual": "model.multi_modal_projector"}
)


@dataclass(frozen=True)
class Native:
    """A class of transformers that may hold a model."""

    cls: str
    """Its name."""
    kind: ConnectorKind
    """The connector that it has."""
    names: Mapping[str, str]
    """Its names of the connector's layers, by ours."""
    settings: Callable[[MLLM], dict[str, Any]]
    """What its config says beside the parts and the image token."""
    conditions: Callable[[MLLM], Iterator[str]]
    """What keeps it from holding a model, a sentence each that says what would fit."""
    joins: bool = False
    """Whether it puts several states of the tower side by side."""
    reads_states: bool = True
    """Whether it reads `hidden_states` also for the last one."""
    tiles: bool = False
    """Whether its own processor cuts images into tiles as training does."""


def problems(native: Native, mllm: MLLM, layout: VisualLayout) -> list[str]:
    """What keeps the class from holding the model; empty where nothing is known to."""
    return [
        *_tower(native, mllm),
        *_language(mllm),
        *native.conditions(mllm),
        *_images(native, layout),
    ]


def write_native(native: Native, name: str, trained: Trained, folder: Path) -> Watching:
    """Write the model as the class's own folder.

    Raises:
        ModelError: the class cannot hold it; every condition that fails is named.
    """
    bundle = trained.bundle
    if found := problems(native, bundle.mllm, bundle.layout):
        told = "".join(f"\n  {problem}" for problem in found)
        raise ModelError(f"{native.cls} cannot hold this model:{told}")
    model = _filled(native, trained)
    model.config.save_pretrained(folder)
    # The names that transformers itself saves, which other tools know.
    tied = set(model.all_tied_weights_keys)
    held = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    write_weights(folder, pieces(revert_weight_conversion(model, held), trained.dtype))
    write_processor(trained, folder)
    title = f"{trained.tower.config.model_type} and {trained.language.config.model_type}"
    example = model_example(remote=False)
    write_card(trained, Card("image-text-to-text", title, example, (name, "multimodal")), folder)
    return _WATCHING


def _tower(native: Native, mllm: MLLM) -> Iterator[str]:
    tower, connector = mllm.tower, mllm.connector.config
    if connector.kind != native.kind:
        yield f"the connector is {connector.kind}; train with model.connector.kind: {native.kind}"
    if connector.column_major:
        yield "visual tokens go column by column (ps_version v1), and the class's row by row"
    if takes_patches(tower):
        yield "the tower takes flattened patches, and the class gives pixels; choose another tower"
    if tower.alone:
        yield "the tower takes tiles one by one, and the class gives them together"
    if tower.prefix > 1:
        yield (
            f"the tower has {tower.prefix} tokens before its patches, and the class drops one at"
            " most; choose a tower without registers"
        )
    choice = tower.choice
    if choice.norm:
        yield "states go through the tower's final norm; train without model.feature_norm"
    if len(choice.layers) > 1 and (choice.join != "concat" or not native.joins):
        yield (
            f"the connector reads {len(choice.layers)} of the tower's states ({choice.join});"
            " train with one model.feature_layer"
        )


def _language(mllm: MLLM) -> Iterator[str]:
    if not mllm.plain_head:
        yield (
            "the language scales or caps its scores, which the class does not; choose a language"
            " with a plain head"
        )
    if getattr(mllm.language.get_output_embeddings(), "bias", None) is not None:
        yield "the language's head has a bias, which the class has not; choose another language"


def _images(native: Native, layout: VisualLayout) -> Iterator[str]:
    if layout.native is not None:
        yield "images are in native resolution; train with model.image.mode: fixed"
    elif layout.max_tiles > 1 and not native.tiles:
        yield "images are cut into tiles; train with model.image.max_tiles: 1"
    elif layout.max_tiles > 1:
        if layout.wrap is None or not layout.thumbnail:
            yield "its processor wraps tiles and adds a thumbnail; train with model.image.wrap: [<img>, </img>]"
        if not is_torchvision_available():
            yield (
                "its processor for tiles loads a video processor, which needs torchvision:"
                " install torchvision, or train with model.image.max_tiles: 1"
            )


def _width(mllm: MLLM, *, merge: int | None = None) -> Iterator[str]:
    """Conditions on the connector's widths, and on its merge where there is only one."""
    config = mllm.connector.config
    if config.hidden != config.language_width:
        yield (
            f"the connector is {config.hidden} wide, and the class's is as wide as the language;"
            f" train with model.connector.hidden: {config.language_width}"
        )
    if merge is not None and config.merge != merge:
        yield (
            f"the connector merges {config.merge} x {config.merge} patches; train with"
            f" model.connector.merge: {merge}"
        )


def _internvl_fits(mllm: MLLM) -> Iterator[str]:
    yield from _width(mllm)
    kind = mllm.tower.model.config.model_type
    if kind != "internvl_vision":
        yield (
            f"the tower is a {kind}, and the class builds an InternViT (internvl_vision) whatever"
            " the config says; choose such a tower, or the layout hf"
        )
    if mllm.connector.config.eps != 1e-5:
        yield f"the connector's norm adds {mllm.connector.config.eps}; the class's adds 1e-05"


def _vip_fits(mllm: MLLM) -> Iterator[str]:
    yield from _width(mllm, merge=1)
    if mllm.tower.prefix != 1:
        yield (
            "the class drops the first token of the tower, which has no class token; choose a"
            " tower with one, such as CLIP"
        )


def _internvl(mllm: MLLM) -> dict[str, Any]:
    return {
        **_selection(mllm),
        "downsample_ratio": 1 / mllm.connector.config.merge,
        "image_seq_length": mllm.visual_tokens,
    }


def _llava(mllm: MLLM) -> dict[str, Any]:
    return {
        **_selection(mllm),
        "multimodal_projector_bias": mllm.connector.config.bias,
        "image_seq_length": mllm.visual_tokens,
    }


def _aya(mllm: MLLM) -> dict[str, Any]:
    config = mllm.connector.config
    return {
        **_selection(mllm),
        "downsample_factor": config.merge,
        "adapter_layer_norm_eps": config.eps,
        "alignment_intermediate_size": 2 * config.hidden,
    }


def _vip(mllm: MLLM) -> dict[str, Any]:
    return {
        "vision_feature_layer": list(mllm.tower.choice.layers),
        "projector_layernorm_eps": mllm.connector.config.eps,
        "projector_hidden_act": mllm.connector.config.activation,
        "image_seq_length": mllm.visual_tokens,
    }


def _selection(mllm: MLLM) -> dict[str, Any]:
    layers = list(mllm.tower.choice.layers)
    return {
        "vision_feature_layer": layers[0] if len(layers) == 1 else layers,
        "vision_feature_select_strategy": "default" if mllm.tower.prefix else "full",
        "projector_hidden_act": mllm.connector.config.activation,
    }


NATIVES: dict[str, Native] = {
    "llava": Native(
        "LlavaForConditionalGeneration",
        "mlp",
        _LINEAR,
        _llava,
        lambda m: _width(m, merge=1),
        joins=True,
    ),
    "internvl": Native(
        "InternVLForConditionalGeneration",
        "merge_mlp",
        {"norm": "layer_norm", **_LINEAR},
        _internvl,
        _internvl_fits,
        reads_states=False,
        tiles=True,
    ),
    "aya_vision": Native(
        "AyaVisionForConditionalGeneration",
        "swiglu",
        {"norm": "layernorm", **_LINEAR},
        _aya,
        lambda mllm: iter(()),
    ),
    "vip_llava": Native(
        "VipLlavaForConditionalGeneration",
        "merge_mlp",
        {"norm": "projector_layernorm", **_LINEAR},
        _vip,
        _vip_fits,
        joins=True,
    ),
}
"""By the name that `--to` takes."""


def _filled(native: Native, trained: Trained) -> Any:
    """The class around the model's own tensors.

    Raises:
        ModelError: they do not fit it.
    """
    mllm = trained.bundle.mllm
    cls = getattr(transformers, native.cls)
    language = language_tensors(trained.language)
    # A class ties its head to a table of one name; one of another name is written twice.
    table = cls._tied_weights_keys["lm_head.weight"].removeprefix("model.")
    tied = "lm_head.weight" not in language and table in language
    parts = {
        **under("model.vision_tower", trained.tower),
        **{
            f"model.multi_modal_projector.{native.names[name.split('.')[0]]}.{name.split('.')[1]}": t
            for name, t in trained.connector.state_dict().items()
        },
        **{n if n.startswith("lm_head") else f"model.{n}": t for n, t in language.items()},
    }
    vision = trained.config_of(trained.tower)
    if native.reads_states:
        vision |= _switch(trained)
    config = cls.config_class(
        vision_config=vision,
        text_config={**trained.config_of(trained.language), "tie_word_embeddings": tied},
        image_token_id=trained.bundle.layout.placeholder_id,
        tie_word_embeddings=tied,
        **native.settings(mllm),
    )
    config.dtype = trained.dtype
    config.architectures = [native.cls]
    # Without memory: the tensors are put in by `assign`, and random ones would double the need.
    with torch.device("meta"):
        model = cls(config)
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    # The class lists its head even where it is tied, so the check of names must find one.
    parts.setdefault("lm_head.weight", trained.language.get_output_embeddings().weight)
    given = {name: tensor.shape for name, tensor in parts.items()}
    if wrong := sorted(n for n in wanted | given if wanted.get(n) != given.get(n)):
        raise ModelError(
            f"{native.cls} cannot hold this model: its {wrong[0]} is {_told(wanted, wrong[0])},"
            f" and the model's is {_told(given, wrong[0])}"
        )
    model.load_state_dict(parts, assign=True)
    return model


def _told(shapes: Mapping[str, torch.Size], name: str) -> str:
    return str(list(shapes[name])) if name in shapes else "not there"


def _switch(trained: Trained) -> dict[str, bool]:
    """What of the tower's config makes `hidden_states[-1]` the state that the connector reads,
    after the final norm or before it; empty where it is that or not read.

    Raises:
        ModelError: the tower's class has no such switch.
    """
    choice, vision = trained.bundle.mllm.tower.choice, trained.tower
    if _reads_alike(trained):
        return {}
    value = choice.norm is None
    before = getattr(vision.config, _SWITCH, None)
    setattr(vision.config, _SWITCH, value)
    try:
        found = _reads_alike(trained)
    finally:
        setattr(vision.config, _SWITCH, before)
    if found:
        return {_SWITCH: value}
    raise ModelError(
        f"the connector reads the last state {'after' if value else 'before'} the final norm of the"
        f" tower, and {type(vision).__name__} gives the class the other one; train with"
        f" model.feature_norm: {'false' if value else 'null'}, or with model.feature_layer: -2"
    )


@torch.no_grad()
def _reads_alike(trained: Trained) -> bool:
    """Whether `hidden_states[-1]`, where it is read at all, is what the connector reads."""
    tower = trained.bundle.mllm.tower
    size = tower.preprocessing.size
    inputs = tower.inputs(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    made = trained.tower(**inputs, output_hidden_states=True)
    if not {-1, len(made.hidden_states) - 1} & set(tower.choice.layers):
        return True
    # Asked of the tower itself: which state comes last differs between classes and releases.
    normed = torch.equal(made.hidden_states[-1], made.last_hidden_state)
    return normed == (tower.choice.norm is None)
