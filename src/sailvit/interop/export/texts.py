"""Tokenizer, chat template and generation config of an export."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import GenerationConfig

from sailvit.core.run import read_json, write_json
from sailvit.inference.model import RunModel
from sailvit.interop.export.trained import Trained

_SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p"),
    *("epsilon_cutoff", "eta_cutoff"),
)
"""Settings of a generation config that only sampling uses."""
_BEAMS = ("early_stopping", "length_penalty")
"""Settings that only a search with beams uses."""


def write_texts(
    trained: Trained, folder: Path, template: str, *, bare: bool = False, **tokens: str
) -> None:
    """Write tokenizer, chat template and generation config.

    `bare` keeps the tokenizer from adding special tokens by itself, for processors that let it:
    training's prompts have those of the chat template alone. `tokens` are special tokens that
    the layout's processor asks the tokenizer for by name.
    """
    # A copy, as the run's own tokenizer goes on to be used for the questions of the gate.
    tokenizer = copy.deepcopy(trained.bundle.tokenizer)
    tokenizer.chat_template = template
    # Answers begin where a row ends; the attribute alone is not saved.
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"
    if bare:
        _keep_bare(tokenizer)
    tokenizer.save_pretrained(folder)
    if tokens:
        config = read_json(folder / "tokenizer_config.json")
        write_json(
            folder / "tokenizer_config.json", {**config, "model_specific_special_tokens": tokens}
        )
    generation(trained.model).save_pretrained(folder)


def generation(model: RunModel) -> Any:
    """The language's generation config with the tokens that end and pad answers, without what
    its way of generating does not use.
    """
    config, usual = copy.deepcopy(model.bundle.mllm.language.generation_config), GenerationConfig()
    # Older checkpoints hold a temperature beside greedy decoding, which transformers loads but
    # refuses to save once something else has changed.
    unused = () if config.do_sample else _SAMPLING
    for name in (*unused, *(() if (config.num_beams or 1) > 1 else _BEAMS)):
        setattr(config, name, getattr(usual, name, None))
    ends, tokenizer = model.generation.ends, model.bundle.tokenizer
    config.eos_token_id = ends or None
    # Any token does for padding, as it is masked; without one `generate` refuses batches.
    spare = (tokenizer.pad_token_id, tokenizer.eos_token_id, *ends, 0)
    config.pad_token_id = next(token for token in spare if token is not None)
    if getattr(config, "bos_token_id", None) is None:
        config.bos_token_id = tokenizer.bos_token_id
    return config


def _keep_bare(tokenizer: Any) -> None:
    """Let the tokenizer add nothing to texts."""
    if tokenizer("a").input_ids == tokenizer("a", add_special_tokens=False).input_ids:
        return
    for name in ("add_bos_token", "add_eos_token"):
        if hasattr(tokenizer, name):
            setattr(tokenizer, name, False)
            tokenizer.init_kwargs[name] = False
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B")
