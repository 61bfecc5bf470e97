"""Files of a checkpoint besides its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from sailvit.core.errors import ModelError
from sailvit.models.guards.errors import ForeignErrors

_GENERATION = "generation_config.json"
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""Files that a tokenizer is made of."""


def read_optional(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one where there is no such file."""
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def copy_tokenizer(source: Path, folder: Path, template: str | None) -> PreTrainedTokenizerBase:
    """Write the tokenizer of a checkpoint beside its language, with a chat template.

    Raises:
        ModelError: it has none, or one that is code of its own.
    """
    config = read_optional(source / "tokenizer_config.json")
    if "auto_map" in config and not (source / "tokenizer.json").is_file():
        raise ModelError(
            f"the tokenizer in {source} is code of its own ({config.get('tokenizer_class')}), which"
            " is not run here; expected a tokenizer.json: save it once as a fast tokenizer"
        )
    # Beside the language's own config: the whole model's may ask for code of its own.
    for name in _TOKENIZER:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    with ForeignErrors(f"cannot load the tokenizer in {source}"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
    # Older checkpoints keep it in a file of the processor, which a tokenizer does not read.
    held = read_optional(source / "chat_template.json").get("chat_template")
    tokenizer.chat_template = template or tokenizer.chat_template or held
    # Written anew in one form: old files, such as merges.txt, would be read before the new ones.
    for name in _TOKENIZER:
        # What saving does not write again would stand beside it and could contradict it.
        (folder / name).unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    made: PreTrainedTokenizerBase = tokenizer
    return made


def copy_generation(source: Path, folder: Path, ends: int | None) -> None:
    """Write what a checkpoint says about generation beside its language; where it says nothing,
    the token that `ends` a turn, without which answers would not end.
    """
    if (source / _GENERATION).is_file():
        with ForeignErrors(f"cannot read {_GENERATION} in {source}"):
            GenerationConfig.from_pretrained(source).save_pretrained(folder)
    elif ends is not None:
        said = read_optional(folder / "config.json").get("eos_token_id")
        others = said if isinstance(said, list) else [] if said is None else [said]
        every = [ends, *(token for token in others if token != ends)]
        GenerationConfig(eos_token_id=every).save_pretrained(folder)
