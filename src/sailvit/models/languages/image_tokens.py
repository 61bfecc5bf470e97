"""Tokens that stand for an image in text, or stand around it: added to the tokenizer and the
language where they are missing.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sailvit.core.recipe import ModelConfig
from sailvit.core.seeding import derive_seed


def add_image_tokens(tokenizer: PreTrainedTokenizerBase, config: ModelConfig) -> list[str]:
    """Add the placeholder and the tokens around images to the tokenizer as special tokens; the
    latter that were missing.
    """
    known = tokenizer.get_vocab()
    around = [token for token in config.image.wrap or () if token not in known]
    placeholder = [config.placeholder] if config.placeholder not in known else []
    if missing := [*placeholder, *around]:
        tokenizer.add_tokens(missing, special_tokens=True)
    return around


def table_rows(tokenizer: PreTrainedTokenizerBase) -> int:
    """Rows that a table needs to have one for every token.

    The number of tokens is not enough: ids may have gaps between them.
    """
    return 1 + max(tokenizer.get_vocab().values(), default=-1)


def make_room(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, new: list[str], seed: int
) -> None:
    """Let the language's tables hold every token, and give the `new` ones mean embeddings."""
    rows = table_rows(tokenizer)
    if rows > model.get_input_embeddings().num_embeddings:
        # Visual tokens take the place of the placeholder's embedding, which is never read: it
        # is not worth the covariance of all embeddings that mean_resizing would compute.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "placeholder"))
            model.resize_token_embeddings(rows, mean_resizing=False)
    if not new:
        return
    ids = tokenizer.convert_tokens_to_ids(new)
    head = model.get_output_embeddings()
    tables = [model.get_input_embeddings().weight]
    tables += [head.weight] if head is not None and head.weight is not tables[0] else []
    with torch.no_grad():
        for table in tables:
            # Tokens around images are read from the first step on, also while the language is
            # frozen; a row that was never trained, or drawn at random, is unlike any token.
            table[ids] = table[: min(ids)].mean(dim=0)
