"""The parts of a recipe's model, each from its folder or hub id."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.image_processing_base import ImageProcessingMixin

from sailvit.core.errors import ModelError
from sailvit.core.layout import GridLimits, VisualLayout
from sailvit.core.recipe import ImageConfig, ModelConfig, Part
from sailvit.models.guards.checkpoint_files import refuse_damaged, refuse_quantised
from sailvit.models.guards.errors import ForeignErrors, Loading, short_reason
from sailvit.models.guards.roles import refuse_language
from sailvit.models.languages.image_tokens import add_image_tokens, make_room
from sailvit.models.languages.text_model import load_text_model, text_config, text_note
from sailvit.models.loading.llava_layout import NAMED_TOWER, is_llava, llava_config
from sailvit.models.loading.vision import VisionModel, find_vision
from sailvit.models.loading.vision_weights import load_part, load_whole
from sailvit.models.packing.attention import register_attention
from sailvit.models.structure.mllm import MLLM
from sailvit.models.towers.layers import FeatureChoice
from sailvit.models.towers.native_proof import prove_native
from sailvit.models.towers.original_aimv2 import is_original, load_original, original_config
from sailvit.models.towers.preprocessing import read_preprocessing
from sailvit.models.towers.proof import prove_tiles
from sailvit.models.towers.tower import Preprocessing, Tower

SHIPPED = "sailvit:"
"""Prefix of checkpoints that come with the package."""


def language_notes(config: ModelConfig) -> tuple[str, ...]:
    """What is unusual about the language, and how it runs therefore."""
    source = resolve_source(config.language)
    with Loading("language", source):
        whole = AutoConfig.from_pretrained(source, **hub_options(config, "language"))
    text = text_config(whole, source)
    return () if text is whole else (text_note(whole, text),)


def resolve_source(source: str) -> str:
    """A hub id or folder as transformers takes it; `sailvit:` names become folders inside the
    package.
    """
    if not source.startswith(SHIPPED):
        return source
    folder = Path(str(files("sailvit"))) / "assets" / source.removeprefix(SHIPPED)
    if not folder.is_dir():
        shipped = sorted(path.name for path in folder.parent.glob("*") if path.is_dir())
        raise ModelError(
            f"no shipped checkpoint {source!r}; shipped are: {', '.join(shipped) or 'none'}"
        )
    return str(folder)


def load_tower(config: ModelConfig) -> tuple[Tower, dict[str, Any]]:
    """The tower and its preprocessor config, with the recipe's image settings applied to both."""
    register_attention()
    source = resolve_source(config.tower)
    options = hub_options(config, "tower")
    refuse_damaged("tower", source)
    whole = tower_config(source, options)
    refuse_quantised("tower", whole.to_dict(), source)
    vision = find_vision(whole, source, trust_remote_code=config.trust_remote_code)
    preprocessor = apply_image_config(
        load_preprocessor(source, options, config.image), config.image
    )
    preprocessing = read_preprocessing(preprocessor, config.tower, vision.size)
    load = partial(_tower, source, vision, options, preprocessing, FeatureChoice.of(config))
    try:
        tower, missing = load(attention=vision.attention)
    except ModelError:
        # Models that do not know transformers' attention interface run with their own.
        tower, missing = load(attention=None)
    # Weights that features do not depend on, such as a pooling head's, may be missing.
    _refuse_missing(missing - tower.idle, config.tower)
    prove_tiles(tower)
    if config.image.native:
        prove_native(tower, config.connector.merge)
    tower.notes = (*vision.notes, *tower.notes)
    return tower, preprocessor


def tower_config(source: str, options: dict[str, Any]) -> Any:
    """The config of a tower's checkpoint, as transformers knows it."""
    with Loading("tower", source):
        given = _config_dict(source, options)
        if is_original(given):
            return original_config(given)
        if is_llava(given):
            return llava_config(given)
        return AutoConfig.from_pretrained(source, **options)


def _config_dict(source: str, options: dict[str, Any]) -> dict[str, Any]:
    revision = options.get("revision")
    found: dict[str, Any] = PretrainedConfig.get_config_dict(source, revision=revision)[0]
    return found


def _tower(
    source: str,
    vision: VisionModel,
    options: dict[str, Any],
    preprocessing: Preprocessing,
    choice: FeatureChoice,
    *,
    attention: str | None,
) -> tuple[Tower, set[str]]:
    """The tower with one implementation of attention, and the names of weights that the
    checkpoint lacks.
    """
    with Loading("tower", source):
        if is_original(_config_dict(source, options)):
            revision = options.get("revision")
            model, info = load_original(
                source, vision.config, revision=revision, attention=attention
            )
            missing = set(info["missing_keys"])
        elif vision.inside:
            model, missing = load_part(source, vision, options, attention=attention)
        else:
            model, missing = load_whole(source, vision, options, attention=attention)
    return Tower(model, preprocessing, choice), missing


def load_language(
    config: ModelConfig, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, int]:
    """The language with its own attention, its tokenizer, and the id of the placeholder token
    in both.
    """
    register_attention()
    source = resolve_source(config.language)
    options = hub_options(config, "language")
    refuse_damaged("language", source)
    with Loading("language", source):
        whole = AutoConfig.from_pretrained(source, **options)
    refuse_quantised("language", whole.to_dict(), source)
    tokenizer = load_tokenizer(source, options)
    text = text_config(whole, source)
    refuse_language(text, source)
    if text is whole:
        with Loading("language", source):
            model, info = AutoModelForCausalLM.from_pretrained(
                source,
                # Whatever the file holds: most updates of bf16 weights would be rounded away.
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
    else:
        model, info = load_text_model(source, whole, text, options)
    _refuse_missing(set(info["missing_keys"]), config.language)
    new = add_image_tokens(tokenizer, config)
    make_room(model, tokenizer, new, seed)
    return model, tokenizer, tokenizer.convert_tokens_to_ids(config.placeholder)


def load_tokenizer(source: str, options: dict[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer of the language in a folder or of a hub id, without the placeholder.

    Raises:
        ModelError: its files are no tokenizer, or there are none.
    """
    loading = (
        ForeignErrors(
            f"cannot load the tokenizer of the language from the folder {source}",
            "; its tokenizer files are damaged, or of another kind: download them again",
        )
        if Path(source).is_dir()
        else Loading("language", source)
    )
    with loading:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **options)
    return tokenizer


def load_preprocessor(source: str, options: dict[str, Any], image: ImageConfig) -> dict[str, Any]:
    """The tower's preprocessor config; an empty one when there is none but the recipe gives
    size, mean and std.
    """
    try:
        preprocessor: dict[str, Any] = ImageProcessingMixin.get_image_processor_dict(
            source, **options
        )[0]
    except OSError as error:
        if image.size and image.mean and image.std:
            return {}
        given = _config_dict(source, options)
        # timm's checkpoints say in the model's config what others say in the preprocessor's.
        if timm := given.get("pretrained_cfg"):
            colours = {"image_mean": timm.get("mean"), "image_std": timm.get("std")}
            side = timm.get("input_size", [None])[-1]
            return {"size": {"height": side, "width": side}, **colours}
        if is_llava(given):
            return load_preprocessor(given[NAMED_TOWER], {}, image)
        if (Path(source) / "preprocessor_config.json").is_file():
            raise ModelError(
                f"cannot read the preprocessor_config.json of the tower {source!r}: {short_reason(error)};"
                " download it again"
            ) from error
        raise ModelError(
            f"the tower {source!r} has no preprocessor_config.json, so its image size, mean and std are unknown;"
            " add the file or set model.image.size, model.image.mean and model.image.std"
        ) from error
    return preprocessor


def apply_image_config(preprocessor: dict[str, Any], image: ImageConfig) -> dict[str, Any]:
    """The preprocessor config with the recipe's overrides written into it, as it is saved
    beside a refined tower.
    """
    changed = dict(preprocessor)
    if image.size:
        # A crop would win over the size.
        changed.pop("crop_size", None)
        changed.update(size={"height": image.size, "width": image.size}, do_center_crop=False)
    if image.mean:
        changed["image_mean"] = list(image.mean)
    if image.std:
        changed["image_std"] = list(image.std)
    if (image.mean or image.std) and changed.get("do_normalize") is False:
        # Else what the recipe says of colours would be left out.
        changed["do_normalize"] = True
    return changed


def hub_options(config: ModelConfig, part: Part) -> dict[str, Any]:
    """What every `from_pretrained` of `part` is given: its revision, if pinned, and whether
    remote code may run.
    """
    pinned = {"revision": config.revision[part]} if part in config.revision else {}
    return {"trust_remote_code": config.trust_remote_code, **pinned}


def layout_of(mllm: MLLM, config: ModelConfig) -> VisualLayout:
    """How images become tiles and placeholder runs for this model."""
    image, merged = config.image, int(mllm.connector.config.merge) ** 2
    limits = GridLimits(
        # Rounded up, as one fewer would be less than the recipe asks for.
        least=-(-image.min_patches // merged),
        most=max(1, image.max_patches // merged),
        square=max(1, mllm.tower.side // int(mllm.connector.config.merge)),
    )
    return VisualLayout(
        tile_size=mllm.tile_size,
        tokens_per_tile=mllm.visual_tokens,
        placeholder_id=mllm.placeholder_id,
        placeholder=config.placeholder,
        max_tiles=image.max_tiles,
        thumbnail=image.thumbnail,
        wrap=image.wrap,
        newline=image.newline,
        native=limits if image.native else None,
    )


def _refuse_missing(missing: set[str], source: str) -> None:
    if missing:
        names = ", ".join(sorted(missing)[:3])
        raise ModelError(
            f"the checkpoint {source!r} lacks {len(missing)} weights that this architecture uses ({names}, ...);"
            " training would start from random ones; use a complete checkpoint"
        )
