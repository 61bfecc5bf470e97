"""The model of a recipe without its weights: same modules, same checks, on the meta device,
from config files alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    PreTrainedTokenizerBase,
)

from sailvit.core.errors import ModelError
from sailvit.core.layout import VisualLayout
from sailvit.core.recipe import ModelConfig, Part
from sailvit.models.guards.checkpoint_files import refuse_misfits, refuse_quantised
from sailvit.models.guards.errors import Loading
from sailvit.models.guards.roles import refuse_language, vision_config
from sailvit.models.languages.text_model import text_config
from sailvit.models.loading.build import (
    apply_image_config,
    hub_options,
    layout_of,
    load_connector,
    load_preprocessor,
    load_tokenizer,
    resolve_source,
)
from sailvit.models.structure.mllm import MLLM
from sailvit.models.towers.preprocessing import read_preprocessing
from sailvit.models.towers.tower import Tower

CONFIGS = Path(__file__).parents[1] / "configs"
"""Config files of the towers and languages that shipped recipes name, by hub id with `--` for
`/`."""

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
"""Files of which a folder with a tokenizer holds one."""


@dataclass(frozen=True)
class Sketch:
    """A model to count and to plan with."""

    mllm: MLLM
    """The three parts on the meta device."""
    layout: VisualLayout
    """How images become tiles and placeholder runs; the id is the tokenizer's, or 0 without
    one."""
    tokenizer: PreTrainedTokenizerBase | None
    """The language's tokenizer with the placeholder; none when it is not on this machine."""
    day: date = field(default_factory=date.today)
    """The day that the tokenizer's chat template is given as today's."""


def sketch(config: ModelConfig) -> Sketch:
    """The model without weights; configs are looked for in local folders, shipped files, the
    hub's cache, the hub.

    Raises:
        ModelError: a config cannot be found, or grid and connector do not fit.
    """
    tower = _sketch_tower(config)
    language_config = read_config(config, "language")
    with torch.device("meta"):
        with Loading("language", config.language):
            language = AutoModelForCausalLM.from_config(
                language_config, trust_remote_code=config.trust_remote_code
            )
        _refuse_misfits("language", config.language, language)
        # Sizes are all that is asked for, so a trained connector's weights are not read.
        fresh = config.connector.model_copy(update={"source": None})
        connector = load_connector(
            config.model_copy(update={"connector": fresh}), tower, language, seed=0
        )
    tokenizer = find_tokenizer(config)
    placeholder_id = tokenizer.convert_tokens_to_ids(config.placeholder) if tokenizer else 0
    mllm = MLLM(tower, connector, language, placeholder_id)
    return Sketch(mllm, layout_of(mllm, config), tokenizer, config.day)


def config_source(source: str) -> str:
    """Where the config of a tower or language is: a folder when there is one, otherwise the hub
    id itself.
    """
    shipped = CONFIGS / source.replace("/", "--")
    return (
        str(shipped) if shipped.is_dir() and not Path(source).is_dir() else resolve_source(source)
    )


def _sketch_tower(config: ModelConfig) -> Tower:
    whole = read_config(config, "tower")
    with torch.device("meta"), Loading("tower", config.tower):
        model = AutoModel.from_config(whole, trust_remote_code=config.trust_remote_code)
    preprocessor = load_preprocessor(
        config_source(config.tower), hub_options(config, "tower"), config.image
    )
    preprocessing = read_preprocessing(apply_image_config(preprocessor, config.image), config.tower)
    _refuse_misfits("tower", config.tower, model)
    return Tower(model, preprocessing, config.feature_layer)


def _refuse_misfits(part: Part, source: str, model: nn.Module) -> None:
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    refuse_misfits(part, resolve_source(source), shapes)


def read_config(config: ModelConfig, part: Part) -> Any:
    """The config of tower or language, from a folder, a shipped file, the hub's cache or the hub.

    Raises:
        ModelError: it cannot be read, or it is not one of such a part.
    """
    source = getattr(config, part)
    with Loading(part, source):
        whole = AutoConfig.from_pretrained(config_source(source), **hub_options(config, part))
    refuse_quantised(part, whole.to_dict(), source)
    if part == "tower":
        return vision_config(whole, source)
    text = text_config(whole, source)
    refuse_language(text, source)
    return text


def find_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase | None:
    """The language's tokenizer with the placeholder; none when it is not on this machine.

    Raises:
        ModelError: there are files of a tokenizer, and they are no tokenizer.
    """
    source = resolve_source(config.language)
    try:
        options = {"local_files_only": True, **hub_options(config, "language")}
        tokenizer = load_tokenizer(source, options)
    except ModelError as error:
        # The first two kinds also say that there are no files, here or in the hub's cache.
        held = any((Path(source) / name).is_file() for name in _TOKENIZERS)
        if held or not isinstance(error.__cause__, OSError | ValueError):
            raise
        return None
    # A folder without tokenizer files gives an empty tokenizer, not an error.
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        return None
    if config.placeholder not in tokenizer.get_vocab():
        tokenizer.add_tokens([config.placeholder], special_tokens=True)
    return tokenizer
