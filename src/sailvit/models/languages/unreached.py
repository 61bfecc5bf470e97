"""Weights of a language that no gradient reaches, found by its graph: they cannot train.

The indexer by which DeepSeek V3.2 chooses the tokens that a layer attends to is one: a choice has
no derivative. Such weights are never planned to train, or the proof of training would stop the run.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from sailvit.models.guards.leaves import leaves_of
from sailvit.models.guards.untouched import untouched
from sailvit.models.packing.attention import PACKED
from sailvit.models.packing.proof import FAULTS, draw_tokens, segments_of

_TOKENS = 4
"""Length of the text that is read."""
_EXPERT = ".experts."
"""What names of single experts hold: a text that is this short passes through few of them."""


def unreached(language: PreTrainedModel) -> frozenset[str]:
    """Names of the parameters that scores of a text do not depend on, as far as can be
    differentiated; none where the language does not read it.
    """
    table = language.get_input_embeddings()
    # Not every language runs without weights; only estimates of memory depend on these few.
    if table.weight.is_meta:
        return frozenset()
    with untouched(language), torch.enable_grad():
        tokens = draw_tokens(int(table.num_embeddings), (_TOKENS,), table.weight.device)
        given = {"inputs_embeds": table(tokens)[None], "use_cache": False}
        if language.config._attn_implementation == PACKED:
            given["segments"] = segments_of((_TOKENS,), table.weight.device)
        try:
            reached = leaves_of(language(**given).logits)
        except FAULTS:
            # The proof of packing runs into the same and reports it.
            return frozenset()
    return frozenset(
        name
        for name, parameter in language.named_parameters()
        if parameter.requires_grad and id(parameter) not in reached and _EXPERT not in name
    )


def unreached_note(names: frozenset[str]) -> str:
    """A sentence for the run's notes."""
    shown = ", ".join(sorted(names)[:2]) + (", ..." if len(names) > 2 else "")
    return (
        f"no gradient reaches {len(names)} weights of the language ({shown}), such as those that"
        " choose tokens or experts: they stay as they are"
    )
