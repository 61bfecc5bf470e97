"""Decoding as the caller asks for it, greedy by default, whatever a checkpoint's generation
config asks for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


def end_tokens(
    language: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, learnt: Collection[int | None]
) -> list[int]:
    """The tokens that end an answer: those `learnt` as ends of a turn, and those that the
    generation config and the tokenizer name.

    A generation config that was derived from the model's config may hold that config's default,
    which can be an ordinary token of this tokenizer: of these ids only special and added tokens
    count.
    """
    config = language.generation_config
    named = config.eos_token_id
    ids = set([named] if isinstance(named, int) else named or ())
    if getattr(config, "_from_model_config", False):
        ids &= {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    ids |= {token for token in (*learnt, tokenizer.eos_token_id) if token is not None}
    rows = language.get_input_embeddings().num_embeddings
    return sorted(token for token in ids if 0 <= token < rows)


@contextmanager
def plain_generation(
    language: PreTrainedModel,
    *,
    longest: int,
    ends: Collection[int],
    padding: int,
    options: Mapping[str, Any] | None = None,
) -> Iterator[GenerationConfig]:
    """The config of decoding at most `longest` tokens, which replaces the language's own
    meanwhile: greedy, except for what `options` of a GenerationConfig say.

    It has to: `generate` fills what a given config leaves open from the language's own
    (repetition penalty, bad words, forced tokens, beams).
    """
    own = language.generation_config
    values: dict[str, Any] = {"do_sample": False, "num_beams": 1, "max_new_tokens": longest}
    values |= {"eos_token_id": sorted(ends) or None, "pad_token_id": padding}
    plain = GenerationConfig(**{**values, **(options or {})})
    language.generation_config = plain
    try:
        yield plain
    finally:
        language.generation_config = own
