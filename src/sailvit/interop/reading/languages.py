"""The language of a multimodal checkpoint: its tensors, and whether its head is tied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from sailvit.checkpoint.streaming import Piece
from sailvit.interop.reading.located import (
    Shapes,
    experts,
    locate,
    refuse_other_shapes,
    without_experts,
)
from sailvit.interop.reading.plans import PartPlan, Planned, Refusal
from sailvit.interop.reading.stored import Names, Stored
from sailvit.models.body import body_name
from sailvit.models.guards.errors import Loading


def plan_language(
    names: Names, config: PretrainedConfig, source: str, tied: Sequence[bool]
) -> Planned:
    """The language of `config` in a checkpoint.

    `tied` is what the checkpoint's configs say about the head: whole and part may differ, and
    the tensors decide.
    """
    with Loading("language", source), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    table, head = _tables(model)
    body = _body(names, model, without_experts(expected))
    if missing := sorted(without_experts(expected).keys() - {head} - body.keys()):
        return Refusal(
            f"the checkpoint lacks {len(missing)} of its tensors ({', '.join(missing[:3])})"
        )
    found = {**body, **_experts(names, body, expected)}
    refuse_other_shapes("language", found, expected, free=(table,))
    stored_head = _head(names, head, found[table], tied)
    if isinstance(stored_head, Refusal):
        return stored_head
    notes = _fit_rows(config, found[table].shape[0])
    notes += _tie(config, found[table], stored_head, tied)
    used = {stored.name for stored in found.values()}
    if stored_head is not None:
        used.add(stored_head.name)
        found |= {} if config.tie_word_embeddings else {head: stored_head}
    pieces = tuple(stored.as_piece(name) for name, stored in found.items())
    finish_config(config, type(model), pieces)
    return PartPlan(config, pieces, used, tuple(notes))


def finish_config(
    config: PretrainedConfig, made: type[PreTrainedModel], pieces: Sequence[Piece]
) -> None:
    """Write into a config which class and which type of numbers its weights are of."""
    sizes: dict[torch.dtype, int] = {}
    for piece in pieces:
        sizes[piece.dtype] = sizes.get(piece.dtype, 0) + piece.size
    config.architectures = [made.__name__]
    # What configs say about it is often not what the files hold.
    config.dtype = max(sizes, key=lambda dtype: sizes[dtype])


def _tables(model: PreTrainedModel) -> tuple[str, str]:
    """Names of the input embeddings and of the head."""
    # By the modules, as tied ones share one tensor, whose first name may be either's.
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    by_module: dict[Any, str] = {module: name for name, module in model.named_modules()}
    return f"{by_module[embeddings]}.weight", f"{by_module[head]}.weight"


def _body(names: Names, model: PreTrainedModel, expected: Shapes) -> dict[str, Stored]:
    """The decoder's tensors, which checkpoints keep under a prefix of their own."""
    start = f"{body_name(model)}."
    inner = [name.removeprefix(start) for name in expected if name.startswith(start)]
    return {start + name: stored for name, stored in locate(names, inner).items()}


def _experts(names: Names, body: dict[str, Stored], expected: Shapes) -> dict[str, Stored]:
    return experts(names, body) if len(without_experts(expected)) < len(expected) else {}


def _head(names: Names, head: str, table: Stored, tied: Sequence[bool]) -> Stored | Refusal | None:
    """The checkpoint's tensor for the head; None where it has none and it is tied."""
    found = [stored for name, stored in names.items() if name == head or name.endswith(f".{head}")]
    if len(found) > 1:
        listed = ", ".join(stored.name for stored in found)
        return Refusal(f"the checkpoint has {len(found)} output heads ({listed})")
    if found and found[0].shape != table.shape:
        return Refusal(
            f"its embeddings are {list(table.shape)} and its output head {list(found[0].shape)},"
            " which no plain language model can be: the head scores other tokens than are read"
        )
    if not found and not any(tied):
        return Refusal(
            "the checkpoint has no output head (lm_head), and its configs say that the head is not"
            " the embeddings (tie_word_embeddings: false)"
        )
    return found[0] if found else None


def _fit_rows(config: PretrainedConfig, rows: int) -> list[str]:
    """Make the config's vocabulary as long as the embeddings are."""
    if rows == config.vocab_size:
        return []
    before, config.vocab_size = config.vocab_size, rows
    return [
        f"the language's config says {before:,} tokens and its embeddings hold {rows:,}, as tokens"
        " were added; its new config says what they hold"
    ]


def _tie(
    config: PretrainedConfig, table: Stored, head: Stored | None, tied: Sequence[bool]
) -> list[str]:
    """Decide whether the head is the embeddings, and write it into the config."""
    if head is None:
        config.tie_word_embeddings = any(tied)
        return []
    same = table.same_bytes(head)
    config.tie_word_embeddings = same and any(tied)
    if same or not any(tied):
        return []
    return [
        "the configs tie the output head to the embeddings, and the checkpoint holds a head that"
        " differs from them; the head is kept, and the language's new config says so"
    ]
