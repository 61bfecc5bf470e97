"""From a recipe's model section to a model, its tokenizer and its visual layout."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal, overload

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from sailvit.core.layout import VisualLayout
from sailvit.core.recipe import ModelConfig, Packing, Part
from sailvit.core.seeding import derive_seed
from sailvit.distributed.processes import as_one
from sailvit.models.guards.checkpoint_files import refuse_misfits
from sailvit.models.guards.errors import Loading
from sailvit.models.languages.adapters import Adapters, add_adapters
from sailvit.models.languages.image_tokens import table_rows
from sailvit.models.languages.unreached import unreached_note
from sailvit.models.loading.configs import (
    config_source,
    find_tokenizer,
    read_language,
    read_tower,
    stand_in_tokenizer,
)
from sailvit.models.loading.connectors import load_connector, new_connector
from sailvit.models.loading.parts import (
    apply_image_config,
    hub_options,
    language_notes,
    layout_of,
    load_language,
    load_preprocessor,
    load_tower,
    resolve_source,
)
from sailvit.models.loading.vision import VisionModel
from sailvit.models.packing.attention import register_attention
from sailvit.models.structure.mllm import MLLM
from sailvit.models.structure.packing_choice import choose_way
from sailvit.models.towers.layers import FeatureChoice
from sailvit.models.towers.native_proof import prove_native
from sailvit.models.towers.preprocessing import read_preprocessing
from sailvit.models.towers.tower import Tower

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class ModelBundle:
    """A model, and what is needed to make its inputs and to save it."""

    mllm: MLLM
    """The three parts, in fp32, on the CPU."""
    tokenizer: PreTrainedTokenizerBase
    """The language's tokenizer, with the placeholder token."""
    layout: VisualLayout
    """How images become tiles and placeholder runs."""
    preprocessor: dict[str, Any]
    """The tower's preprocessor config, saved again beside the refined tower."""
    day: date = field(default_factory=date.today)
    """The day that the tokenizer's chat template is given as today's."""
    notes: tuple[str, ...] = ()
    """What is unusual about the parts and how they run because of it; the run reports it
    once."""


@dataclass(frozen=True)
class MetaModel:
    """A model without weights, to count and to plan with."""

    mllm: MLLM
    """The three parts on the meta device."""
    layout: VisualLayout
    """How images become tiles and placeholder runs; the id is the tokenizer's, or 0 without
    one."""
    tokenizer: PreTrainedTokenizerBase | None
    """The language's tokenizer with the placeholder; None when it is not on this machine."""
    day: date = field(default_factory=date.today)
    """The day that the tokenizer's chat template is given as today's."""


@overload
def build(
    config: ModelConfig,
    seed: int,
    packing: Packing = "auto",
    *,
    weights: Literal["real", "random"] = "real",
    device: torch.device = _CPU,
) -> ModelBundle: ...
@overload
def build(config: ModelConfig, seed: int = 0, *, weights: Literal["meta"]) -> MetaModel: ...
def build(
    config: ModelConfig,
    seed: int = 0,
    packing: Packing = "auto",
    *,
    weights: Literal["real", "meta", "random"] = "real",
    device: torch.device = _CPU,
) -> ModelBundle | MetaModel:
    """The three parts joined, and proved for how samples of a pack are read.

    "real" loads tower and language, and loads or makes the connector. "random" and "meta" need
    config files alone, from local folders, shipped files, the hub's cache or the hub: "random"
    draws every weight from `seed`, on `device`, and takes a stand-in where there is no
    tokenizer; "meta" has shapes only.

    Raises:
        ModelError: a part cannot be found or loaded whole, or grid and connector do not fit.
    """
    if weights == "meta":
        return _meta(config)
    if weights == "random":
        return _random(config, seed, packing, device)
    with as_one():
        tower, preprocessor = load_tower(config)
        language, tokenizer, placeholder_id = load_language(config, seed)
        adapters = _adapters(config, language, seed)
        connector = load_connector(config, tower, language, seed)
    mllm = MLLM(
        tower, connector, language, placeholder_id, native=config.image.native, adapters=adapters
    )
    choose_way(mllm, packing)
    notes = [*tower.notes, *language_notes(config)]
    if adapters:
        notes.append(str(adapters))
    elif mllm.unreached:
        notes.append(unreached_note(mllm.unreached))
    return ModelBundle(
        mllm, tokenizer, layout_of(mllm, config), preprocessor, config.day, tuple(notes)
    )


def _meta(config: ModelConfig) -> MetaModel:
    found = read_tower(config)
    with torch.device("meta"):
        vision = _vision(found, config)
    _refuse_misfits("tower", config.tower, vision)
    tower, _ = _tower(config, found, vision)
    with torch.device("meta"):
        language = _language(config)
        _refuse_misfits("language", config.language, language)
        adapters = _adapters(config, language, seed=0)
        connector = new_connector(config, tower, language, seed=0)
    tokenizer = find_tokenizer(config)
    placeholder_id = tokenizer.convert_tokens_to_ids(config.placeholder) if tokenizer else 0
    mllm = MLLM(
        tower, connector, language, placeholder_id, native=config.image.native, adapters=adapters
    )
    return MetaModel(mllm, layout_of(mllm, config), tokenizer, config.day)


def _random(config: ModelConfig, seed: int, packing: Packing, device: torch.device) -> ModelBundle:
    register_attention()
    tokenizer = find_tokenizer(config) or stand_in_tokenizer(config)
    found = read_tower(config)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        # The name of the stream is older than the function's.
        torch.manual_seed(derive_seed(seed, "unlearned"))
        vision = _vision(found, config, attn_implementation=found.attention).float()
        tower, preprocessor = _tower(config, found, vision)
        if config.image.native:
            prove_native(tower, config.connector.merge)
        language = _language(config).float()
        if (rows := table_rows(tokenizer)) > language.get_input_embeddings().num_embeddings:
            # The mean and covariance of random rows say nothing, and take long to compute.
            language.resize_token_embeddings(rows, mean_resizing=False)
        adapters = _adapters(config, language, seed)
        connector = new_connector(config, tower, language, seed)
        placeholder_id = tokenizer.convert_tokens_to_ids(config.placeholder)
        mllm = MLLM(
            tower,
            connector,
            language,
            placeholder_id,
            native=config.image.native,
            adapters=adapters,
        )
    choose_way(mllm, packing)
    return ModelBundle(mllm, tokenizer, layout_of(mllm, config), preprocessor, config.day)


def _adapters(config: ModelConfig, language: PreTrainedModel, seed: int) -> Adapters | None:
    return None if config.lora is None else add_adapters(language, config.lora, seed)


def _language(config: ModelConfig) -> PreTrainedModel:
    found = read_language(config)
    with Loading("language", config.language):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            found, trust_remote_code=config.trust_remote_code
        )
    return model


def _vision(found: VisionModel, config: ModelConfig, **options: Any) -> PreTrainedModel:
    with Loading("tower", config.tower):
        return found.make(trust_remote_code=config.trust_remote_code, **options)


def _tower(
    config: ModelConfig, vision: VisionModel, model: PreTrainedModel
) -> tuple[Tower, dict[str, Any]]:
    options = hub_options(config, "tower")
    found = load_preprocessor(config_source(config.tower), options, config.image)
    preprocessor = apply_image_config(found, config.image)
    preprocessing = read_preprocessing(preprocessor, config.tower, vision.size)
    return Tower(model, preprocessing, FeatureChoice.of(config)), preprocessor


def _refuse_misfits(part: Part, source: str, model: nn.Module) -> None:
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    refuse_misfits(part, resolve_source(source), shapes)
