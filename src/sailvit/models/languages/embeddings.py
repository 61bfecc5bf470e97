"""Embeddings as a language reads them, and whether they tell it all: visual tokens have no token
ids.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch.func import functional_call
from transformers import PreTrainedModel

from sailvit.core.errors import ModelError
from sailvit.distributed.sharding import whole
from sailvit.models.guards.errors import short_reason
from sailvit.models.guards.untouched import untouched
from sailvit.models.packing.attention import PACKED
from sailvit.models.packing.proof import FAULTS, draw_tokens, segments_of

_TOKENS = 4
"""Length of the text that is read by its ids and by its embeddings."""

_SAME = 1e-3
"""Largest error of scores, relative to their size. Both ways run the same kernels on the same
numbers; what a layer looks up by ids is many times as large."""


def token_embeddings(language: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """float[M, E]: what the language reads at int64[M] tokens: rows of its table, which some
    languages scale. Every process of a sharded model must call it.
    """
    layer = language.get_input_embeddings()
    # A shard of the table cannot be looked up outside the model's own forward pass.
    table = whole(layer.weight)
    found: torch.Tensor = functional_call(layer, {"weight": table}, (tokens.to(table.device),))
    return found.detach()


def refuse_token_ids(language: PreTrainedModel) -> None:
    """Refuse a language that cannot read visual tokens as it reads text.

    Raises:
        ModelError: it takes no embeddings, fails on some, or reads a text's embeddings otherwise
            than its token ids.
    """
    name, advice = type(language).__name__, "choose another language"
    if "inputs_embeds" not in signature(language.forward).parameters:
        raise ModelError(
            f"{name} takes no inputs_embeds, so visual tokens cannot be given to it; {advice}"
        )
    table = language.get_input_embeddings()
    if table.weight.is_meta:
        return
    tokens = draw_tokens(int(table.num_embeddings), (_TOKENS,), table.weight.device)[None]
    given: dict[str, Any] = {}
    if language.config._attn_implementation == PACKED:
        given["segments"] = segments_of((_TOKENS,), tokens.device)
    with untouched(language):
        try:
            expected = language(input_ids=tokens, **given).logits.float()
        except FAULTS:
            # Not about embeddings; the proof of packing runs into the same and reports it.
            return
        embedded = table(tokens)
        generator = torch.Generator().manual_seed(0)
        visual = torch.randn(embedded.shape, generator=generator).to(embedded)
        try:
            found = language(inputs_embeds=embedded, **given).logits.float()
            language(inputs_embeds=visual, **given)
        except FAULTS as error:
            raise ModelError(
                f"{name} needs token ids, and visual tokens are embeddings without any"
                f" ({short_reason(error)}); {advice}"
            ) from error
    distance = float((found - expected).norm() / expected.norm())
    if not distance <= _SAME:
        raise ModelError(
            f"{name} needs token ids, and visual tokens are embeddings without any: scores of a"
            f" text differ by {distance:.1e} when it is given as embeddings alone; {advice}"
        )
