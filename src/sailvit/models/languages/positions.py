"""Languages whose positions come from a table, which ends: found on the model, not by its
family's name.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from sailvit.models.body import body_of
from sailvit.models.guards.untouched import untouched
from sailvit.models.packing.attention import PACKED
from sailvit.models.packing.proof import FAULTS
from sailvit.models.packing.segments import Segments

_BEYOND = 16
"""Entries that a table may have beyond the config's number: OPT's first two are never used."""


def table_length(language: PreTrainedModel, wanted: int) -> int | None:
    """The most tokens that a sample may have, if a position table ends before `wanted`; None if
    none does.

    With weights on the CPU it is tried out: two tokens are read at the last two positions. On
    the meta device, where no index is out of range, and for a forward without position ids, it
    is what the config says, if there is a table of that size; so too on an accelerator, where a
    wrong index would end the process.
    """
    # Rotary positions have no end. They are not tried either: dynamic scaling remembers the
    # furthest position that it has seen.
    if any(name.endswith("inv_freq") for name, _ in language.named_buffers()):
        return None
    model = body_of(language)
    tried = (
        language.device.type == "cpu"
        and "position_ids" in inspect.signature(model.forward).parameters
    )
    if not tried or not _reads(language, 2):
        said = _said(language)
        return said if said is not None and said < wanted else None
    if _reads(language, wanted):
        return None
    return _end(language, wanted)


def made_for(language: PreTrainedModel) -> int | None:
    """The number of positions that the language was made for, if its config says so. Rotary
    positions go on beyond it, but were never learnt there.
    """
    said = getattr(language.config.get_text_config(), "max_position_embeddings", None)
    return said if isinstance(said, int) else None


def _end(language: PreTrainedModel, beyond: int) -> int:
    """The greatest length from 2 to below `beyond` that can be read, by bisection."""
    known = 2
    while beyond - known > 1:
        middle = (known + beyond) // 2
        if _reads(language, middle):
            known = middle
        else:
            beyond = middle
    return known


def _reads(language: PreTrainedModel, length: int) -> bool:
    """Whether the last two positions of a sample of this length can be read."""
    weight = language.get_input_embeddings().weight
    given: dict[str, Any] = {
        "inputs_embeds": weight.new_zeros(1, 2, weight.shape[1]),
        "position_ids": torch.tensor([[length - 2, length - 1]]),
        "use_cache": False,
    }
    if language.config._attn_implementation == PACKED:
        given["segments"] = Segments(torch.tensor([0, 2], dtype=torch.int32), 2)
    with untouched(language):
        try:
            body_of(language)(**given)
        except FAULTS:
            return False
    return True


def _said(language: PreTrainedModel) -> int | None:
    """The config's number of positions, if an embedding other than the tokens' has it too."""
    said = made_for(language)
    if said is None:
        return None
    tables = (
        module.num_embeddings
        for module in language.modules()
        if isinstance(module, nn.Embedding) and module is not language.get_input_embeddings()
    )
    return said if any(said <= size < said + _BEYOND for size in tables) else None
