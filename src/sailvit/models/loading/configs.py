"""A recipe's model as far as config and tokenizer files tell, before any weight is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sailvit.core.errors import ModelError
from sailvit.core.recipe import ModelConfig
from sailvit.models.guards.checkpoint_files import refuse_quantised
from sailvit.models.guards.errors import Loading
from sailvit.models.guards.roles import refuse_language
from sailvit.models.languages.image_tokens import add_image_tokens
from sailvit.models.languages.text_model import text_config
from sailvit.models.loading.parts import (
    hub_options,
    load_tokenizer,
    resolve_source,
    tower_config,
)
from sailvit.models.loading.vision import VisionModel, find_vision

CONFIGS = Path(__file__).parents[1] / "configs"
"""Config files of the towers and languages that shipped recipes name, by hub id with `--` for
`/`."""

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
"""Files of which a folder with a tokenizer holds one."""


def config_source(source: str) -> str:
    """Where the config of a tower or language is: a folder when there is one, otherwise the hub
    id itself.
    """
    shipped = CONFIGS / source.replace("/", "--")
    return (
        str(shipped) if shipped.is_dir() and not Path(source).is_dir() else resolve_source(source)
    )


def read_tower(config: ModelConfig) -> VisionModel:
    """The tower's vision model, by the config in a folder, a shipped file, the hub's cache or the
    hub.

    Raises:
        ModelError: it cannot be read, or it is not one of a tower.
    """
    whole = tower_config(config_source(config.tower), hub_options(config, "tower"))
    refuse_quantised("tower", whole.to_dict(), config.tower)
    return find_vision(whole, config.tower, trust_remote_code=config.trust_remote_code)


def read_language(config: ModelConfig) -> Any:
    """The language's config, from the same places.

    Raises:
        ModelError: it cannot be read, or it is not one of a causal language model.
    """
    source = config.language
    with Loading("language", source):
        whole = AutoConfig.from_pretrained(config_source(source), **hub_options(config, "language"))
    refuse_quantised("language", whole.to_dict(), source)
    text = text_config(whole, source)
    refuse_language(text, source)
    return text


def find_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase | None:
    """The language's tokenizer with the placeholder; None when it is not on this machine.

    Raises:
        ModelError: there are tokenizer files, and they cannot be read.
    """
    source = resolve_source(config.language)
    try:
        options = {"local_files_only": True, **hub_options(config, "language")}
        tokenizer = load_tokenizer(source, options)
    except ModelError as error:
        # OSError and ValueError are also what missing files raise, here and in the hub's cache.
        held = any((Path(source) / name).is_file() for name in _TOKENIZERS)
        if held or not isinstance(error.__cause__, OSError | ValueError):
            raise
        return None
    # A folder without tokenizer files gives an empty tokenizer, not an error.
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        return None
    add_image_tokens(tokenizer, config)
    return tokenizer


def stand_in_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """A tokenizer that makes one unknown token of every word and mark: their number is about
    right, and speed depends on nothing else.
    """
    marks = [config.placeholder, *(config.image.wrap or ())]
    names = ["[UNK]", "[PAD]", "[END]", *marks]
    core = Tokenizer(
        models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="[UNK]")
    )
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="[UNK]",
        pad_token="[PAD]",
        eos_token="[END]",
        additional_special_tokens=marks,
    )
