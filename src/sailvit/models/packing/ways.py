"""The ways in which a language can read the samples of a pack, each by itself.

`packed`: one row, through packed attention. `own`: one row, and the model is also told where
samples begin, for layers that mix tokens outside attention. `rows`: a padded row per sample,
samples of similar length in one call, through transformers' own attention; padding is on the
right, after all kept positions, where a causal language does not look.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

from sailvit.core.errors import ModelError
from sailvit.distributed.processes import gather_objects
from sailvit.models.body import body_of
from sailvit.models.packing.attention import PACKED
from sailvit.models.packing.segments import Segments


@dataclass(frozen=True)
class Way:
    """One way of reading."""

    kind: Literal["packed", "own", "rows"]
    """How samples are laid out, see above."""
    attention: str | None
    """transformers' name of the attention; None: the one that the model was made with."""
    masked: bool = False
    """With `rows`: whether the model is given a mask of the padding."""


PACKED_WAY = Way("packed", PACKED)
"""How every model is assumed to read until the proof has chosen."""


@dataclass(frozen=True)
class Row:
    """What a language is to read."""

    embedded: torch.Tensor
    """float[T, D]: input embeddings."""
    positions: torch.Tensor
    """int64[T]: position ids, starting at 0 in every sample."""
    segments: Segments
    """Where samples lie."""
    keep: torch.Tensor
    """int64[A]: positions whose outputs are asked for."""


@dataclass(frozen=True)
class Reading:
    """What a language gave for a row."""

    outputs: torch.Tensor
    """float[A, W]: hidden states where the head is plain, otherwise scores over the
    vocabulary."""
    routers: tuple[torch.Tensor, ...] = ()
    """float[T, E] per layer with experts: their scores, where asked for."""


@dataclass(frozen=True)
class Reader:
    """A language and the way it reads."""

    language: PreTrainedModel
    """The language, set to the attention of the way."""
    way: Way
    """How it reads."""
    plain_head: bool
    """Whether the outputs are hidden states, because the head is a linear map of them."""
    together: bool = False
    """Whether calls have collectives, as with shards, so that all processes must make equally
    many."""
    placed: bool = False
    """Whether padded rows come with their positions, as rotations depend on their lengths."""

    def read(self, row: Row, *, routers: bool = False) -> Reading:
        """The outputs that `row` asks for, in its order; with `routers` also the scores of
        experts.
        """
        if self.way.kind == "rows":
            return self._read_rows(row, routers=routers)
        given = {
            "inputs_embeds": row.embedded[None],
            "position_ids": row.positions[None],
            "segments": row.segments,
            "use_cache": False,
        }
        if self.way.kind == "own":
            given |= _told(row.segments)
        outputs, scores = self._call(given, row.keep, routers=routers)
        return Reading(outputs, scores)

    def _read_rows(self, row: Row, *, routers: bool) -> Reading:
        segments, parts, order, starts = row.segments, [], [], 0
        places = segments.inverse.index_select(0, row.keep)
        experts: list[tuple[torch.Tensor, ...]] = []
        for rows in self._groups(segments):
            chosen = ((places >= starts) & (places < starts + rows.numel())).nonzero().flatten()
            embedded = row.embedded.index_select(0, rows.flatten())
            given = {"inputs_embeds": embedded.reshape(*rows.shape, -1), "use_cache": False}
            if self.way.masked:
                given["attention_mask"] = pad(rows.diff(dim=1) > 0, (1, 0), value=True).long()
            if self.placed:
                given["position_ids"] = rows - rows[:, :1]
            outputs, scores = self._call(given, places[chosen] - starts, routers=routers)
            parts.append(outputs)
            order.append(chosen)
            experts.append(scores)
            starts += rows.numel()
        back = torch.cat(order).argsort()
        layers = [torch.cat(layer).index_select(0, segments.inverse) for layer in zip(*experts)]  # noqa: B905
        return Reading(torch.cat(parts).index_select(0, back), tuple(layers))

    def _groups(self, segments: Segments) -> Sequence[torch.Tensor]:
        if not self.together:
            return segments.buckets
        most = max(gather_objects(len(segments.buckets)))
        # A call with one token, of which nothing is kept.
        idle = torch.zeros(1, 1, dtype=torch.long, device=segments.boundaries.device)
        return [*segments.buckets, *[idle] * (most - len(segments.buckets))]

    def _call(
        self, given: dict[str, Any], keep: torch.Tensor, *, routers: bool
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Outputs at int64[a] of the flattened positions, and scores of experts at all of them."""
        model = body_of(self.language) if self.plain_head else self.language
        given = _accepted(model, given) | ({"output_router_logits": True} if routers else {})
        if self.plain_head:
            made = model(**given)
            outputs = made.last_hidden_state.flatten(0, 1)[keep]
        else:
            with _narrowed(self.language.get_output_embeddings(), keep) as narrow:
                made = model(**given)
            outputs = made.logits.flatten(0, 1)
            outputs = outputs if narrow else outputs[keep]
        return outputs, _experts(self.language, made) if routers else ()


def use_attention(language: PreTrainedModel, name: str | None) -> None:
    """Let the language attend by transformers' implementation `name`; None changes nothing.

    Raises:
        ModelError: the language's attention is not exchangeable.
    """
    if name is None or language.config._attn_implementation == name:
        return
    language.set_attn_implementation(name)
    if language.config._attn_implementation != name:
        raise ModelError(
            f"{type(language).__name__} does not go through transformers' attention interface"
        )


def exchangeable(language: PreTrainedModel) -> bool:
    """Whether the language goes through transformers' attention interface, or has no attention
    at all.
    """
    return bool(language._can_set_attn_implementation())


def _told(segments: Segments) -> dict[str, Any]:
    """Where samples begin, by every keyword that models and kernels know for it."""
    bounds = segments.boundaries
    lengths = bounds.diff().long()
    index = torch.arange(len(lengths), dtype=torch.int32, device=bounds.device)
    # transformers' names: FlashAttentionKwargs, and `seq_idx` of the state-space kernels.
    return {
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": segments.longest,
        "max_length_k": segments.longest,
        "seq_idx": index.repeat_interleave(lengths)[None],
    }


_OPTIONAL = {"position_ids", "use_cache", "attention_mask"}
"""Keywords that are left out for a model that does not know them; the proof says whether it
reads right without them."""


def _accepted(model: nn.Module, given: dict[str, Any]) -> dict[str, Any]:
    """`given` without the optional keywords that the model's forward does not know."""
    known = inspect.signature(model.forward).parameters
    if any(one.kind is one.VAR_KEYWORD for one in known.values()):
        return given
    return {name: value for name, value in given.items() if name in known or name not in _OPTIONAL}


@contextmanager
def _narrowed(head: nn.Module | None, keep: torch.Tensor) -> Iterator[list[bool]]:
    """A context in which the head gets the kept positions alone; the list that it yields stays
    empty where the head was not called.
    """
    # At the head's input, since transformers' `logits_to_keep` takes the same positions of
    # every row, and not every language has it.
    seen: list[bool] = []

    def narrow(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """The head's inputs, hidden states at the kept positions alone, float[1, a, D]."""
        del module
        seen.append(True)
        return (inputs[0].flatten(0, 1)[keep][None], *inputs[1:])

    handle = None if head is None else head.register_forward_pre_hook(narrow)
    try:
        yield seen
    finally:
        if handle is not None:
            handle.remove()


def _experts(language: PreTrainedModel, made: Any) -> tuple[torch.Tensor, ...]:
    layers = getattr(made, "router_logits", None)
    if not layers:
        raise ModelError(
            f"{type(language).__name__} gives no scores of experts (router_logits), which the"
            " objective load_balancing needs; leave it out of `objectives`"
        )
    return tuple(layer.reshape(-1, layer.shape[-1]) for layer in layers)
