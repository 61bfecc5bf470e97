"""The language's head: scores over the vocabulary at answer positions, and the loss without
holding them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear
from transformers import PreTrainedModel

from sailvit.models.body import body_name, body_of
from sailvit.models.guards.untouched import untouched
from sailvit.models.packing.attention import PACKED
from sailvit.models.packing.proof import FAULTS, segments_of

CHUNK = 1 << 27
"""Most scores held at once on a GPU: 256 MiB in bf16, or 880 positions with a vocabulary of
150,000. With a tenth of that, reading the weight and adding to its gradient once per chunk
would take longer than the products."""

CPU_CHUNK = 1 << 25
"""The same on the CPU: 64 MiB in bf16, and twice that in float32."""

PIECE = 1 << 25
"""Most scores on a GPU that are in float32 at the same time, 128 MiB."""

CPU_PIECE = 1 << 20
"""The same on the CPU, where 4 MiB stay in the cache: softmax of 64 MiB took 3.3 times as long
per score."""

ALIGNED = 64
"""Rows of scores start at multiples of so many numbers, in vocabularies from `ALIGNED_FROM` on:
matrix products are slower on rows of an odd size, and one placeholder makes 49,153 of SmolLM2's
49,152. The numbers between two rows belong to no score, so nothing else has to know of them
(docs/decisions/010)."""

ALIGNED_FROM = 4096
"""Smaller vocabularies fit the cache, where alignment gains nothing."""


@dataclass(frozen=True)
class Scores:
    """Scores over the vocabulary at A positions, as the hidden states they come from or as they
    are.
    """

    hidden: torch.Tensor | None = None
    """float[A, D]: what a plain linear head turns into scores; None where the head does more
    than that."""
    weight: torch.Tensor | None = None
    """float[N, D]: the plain head's weight."""
    bias: torch.Tensor | None = None
    """float[N]: its bias, if it has one."""
    given: torch.Tensor | None = None
    """float[A, N]: scores of a head that is not plain."""
    dtype: torch.dtype | None = None
    """Precision of a plain head's products, also outside autocast; None: the tensors' own."""

    @property
    def logits(self) -> torch.Tensor:
        """float[A, N], made whole."""
        if self.given is not None:
            return self.given
        hidden, weight, bias = (
            None if t is None else t.to(self.dtype or t.dtype) for t in self._plain
        )
        assert hidden is not None
        assert weight is not None
        return linear(hidden, weight, bias)

    def loss(self, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy summed over int64[A] labels, float[]; a plain head never holds more
        than `CHUNK` scores.
        """
        if self.given is not None:
            # In float32, as transformers' own loss.
            return cross_entropy(self.given.float(), labels, reduction="sum")
        dtype = self.dtype or product_dtype(labels.device)
        total: torch.Tensor = _ChunkedLoss.apply(*self._plain, (labels, dtype))  # type: ignore[no-untyped-call]
        return total

    @property
    def _plain(self) -> tuple[torch.Tensor | None, ...]:
        return self.hidden, self.weight, self.bias


def product_dtype(device: torch.device) -> torch.dtype | None:
    """The precision of autocast's matrix products here and now; None without autocast."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


def has_plain_head(language: PreTrainedModel) -> bool:
    """Whether the scores are a linear map of the last hidden states, found by comparing both on
    noise.

    Models that cap or scale their scores (Gemma 2, Cohere, Granite) go through their own
    forward.
    """
    head, weight = language.get_output_embeddings(), language.get_input_embeddings().weight
    if not isinstance(head, nn.Linear) or not body_name(language):
        return False
    # Without weights nothing can be compared; only estimates of memory depend on the answer.
    if weight.is_meta:
        return getattr(language.config, "final_logit_softcapping", None) is None
    noise = torch.randn(1, 2, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(
        weight
    )
    given: dict[str, Any] = {"inputs_embeds": noise}
    if language.config._attn_implementation == PACKED:
        given["segments"] = segments_of((2,), weight.device)
    with untouched(language):
        try:
            expected = language(**given).logits
            found = head(body_of(language)(**given).last_hidden_state)
        except FAULTS:
            # The proof of packing runs into the same and reports it.
            return False
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


class _ChunkedLoss(torch.autograd.Function):
    """Cross-entropy of a linear head, chunk by chunk, with the gradients made on the way.

    Backward has nothing left to compute but a product with the incoming gradient, so no score
    outlives its chunk. Weight gradients are summed in float32, also where the products run in
    bf16. With 2048 answers and a vocabulary of 151,936 it takes 535 MiB where plain
    cross-entropy takes 3647, and three quarters of the time (benchmarks/loss_memory.py).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        asked: tuple[torch.Tensor, torch.dtype | None],
    ) -> torch.Tensor:
        """float[], of shape (): the sum of the asked labels' losses, int64[A].

        From hidden float[A, D], weight float[N, D] and bias float[N], with products in the
        asked precision.
        """
        labels, dtype = asked
        # Once for all chunks: the weight is the largest tensor here.
        as_asked = partial(torch.Tensor.to, dtype=dtype or hidden.dtype)
        gradients = _Gradients(
            as_asked(hidden),
            as_asked(weight),
            None if bias is None else as_asked(bias),
            ctx.needs_input_grad,
        )
        total = torch.zeros((), device=hidden.device)
        for rows in _slices(
            len(hidden), CHUNK if hidden.is_cuda else min(CHUNK, CPU_CHUNK), len(weight)
        ):
            total += gradients.add(rows, labels[rows])
        # Not by save_for_backward: autograd takes a gradient over without a copy only when
        # nothing else holds it.
        ctx.made = gradients.made
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (hidden, weight, bias)]
        return total

    @staticmethod
    def backward(ctx: Any, *incoming: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients float[A, D], float[N, D] and float[N] from the incoming float[]; only once,
        as they are scaled in place.
        """
        made, ctx.made = ctx.made, None
        return (
            *(
                None if g is None else g.mul_(incoming[0]).to(d)
                for g, d in zip(made, ctx.dtypes, strict=True)
            ),
            None,
        )


class _Gradients:
    """Gradients in float32 of those of hidden, weight and bias that need one, summed over
    chunks of positions.
    """

    def __init__(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        needed: Sequence[bool],
    ) -> None:
        self._hidden, self._weight, self._bias = given = hidden, weight, bias
        self._weight_needed = needed[1]
        # The weight's is as large as the weight, so it begins as its first product; or as
        # zeros, when there is none.
        wanted = needed[0], needed[1] and not len(hidden), needed[2]
        self.made = [
            torch.zeros_like(tensor, dtype=torch.float32) if tensor is not None and want else None
            for tensor, want in zip(given, wanted, strict=True)
        ]

    def add(self, rows: slice, labels: torch.Tensor) -> torch.Tensor:
        """The summed loss of some positions with int64[a] labels; their gradients are added."""
        hidden, (to_hidden, to_weight, to_bias) = self._hidden[rows], self.made
        scores = self._scores(hidden)
        total = torch.zeros((), device=hidden.device)
        for part in _slices(
            len(hidden), PIECE if hidden.is_cuda else min(CHUNK, CPU_PIECE), len(self._weight)
        ):
            loss, slope = _loss_and_slope(scores[part], labels[part, None])
            total += loss
            if to_bias is not None:
                to_bias += slope.sum(dim=0)
            # Over the scores, which are not needed again: another tensor would double the peak.
            scores[part] = slope
        if to_hidden is not None:
            to_hidden[rows] = scores @ self._weight
        if self._weight_needed:
            # In float32 before it is added: a sum of two precisions copies on the CPU, 13 ms
            # per chunk for a weight (docs/log.md).
            product = (scores.T @ hidden).float()
            self.made[1] = product if to_weight is None else to_weight.add_(product)
        return total

    def _scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """float[a, N] of hidden float[a, D], to be written over."""
        out = _scratch(len(hidden), len(self._weight), like=hidden)
        if self._bias is None:
            return torch.mm(hidden, self._weight.T, out=out)
        return torch.addmm(self._bias, hidden, self._weight.T, out=out)


def _loss_and_slope(
    scores: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The summed loss float[] of scores float[a, N] for targets int64[a, 1], and its slope
    float32[a, N].

    One softmax gives both: log-sum-exp is the highest score less the logarithm of its share,
    and that share is at least 1 / N, so its logarithm is exact enough.
    """
    exact = scores.float()
    highest = exact.amax(dim=-1)
    chosen = exact.gather(1, targets)[:, 0]
    shares = exact.softmax(dim=-1)
    loss = (highest - shares.amax(dim=-1).log() - chosen).sum()
    return loss, shares.scatter_add_(1, targets, shares.new_full(targets.shape, -1.0))


def _scratch(rows: int, width: int, *, like: torch.Tensor) -> torch.Tensor:
    """An uninitialised float[rows, width], valid until the next call.

    On the CPU it is the same memory every time: a fresh block of this size costs a page fault
    per 4 KiB, an eighth of the time of the whole loss.
    """
    whole = width if width < ALIGNED_FROM else -(-width // ALIGNED) * ALIGNED
    if like.is_cuda:
        return like.new_empty(rows, whole)[:, :width]
    held = _HELD.get(like.dtype)
    if held is None or len(held) < rows * whole:
        held = _HELD[like.dtype] = like.new_empty(rows * whole)
    return held[: rows * whole].view(rows, whole)[:, :width]


_HELD: dict[torch.dtype, torch.Tensor] = {}
"""The memory of `_scratch`, one tensor per precision."""


def _slices(count: int, most: int, width: int) -> Iterator[slice]:
    """Slices of `count` rows of `width` numbers, each of at most `most` numbers."""
    step = max(1, most // width)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
