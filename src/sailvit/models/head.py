"""The language's head: scores over the vocabulary at answer positions, and the loss without holding them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.function import FunctionCtx
from torch.nn.functional import cross_entropy, linear
from transformers import PreTrainedModel

from sailvit.models.attention import Segments

CHUNK = 1 << 27
"""Most scores held at once on a GPU: 512 MiB in float32, 880 positions of a vocabulary of 150,000. With a tenth of
that, reading the weight and adding to its gradient in every chunk would take longer than the products."""

CPU_CHUNK = 1 << 22
"""The same on the CPU: 16 MiB in float32. Larger blocks go back to the system after every use, and each of their pages
costs a fault when it comes again: softmax of 64 MiB took 3.3 times as long there as in memory at hand."""


@dataclass(frozen=True)
class Scores:
    """Scores over the vocabulary at A positions, as the hidden states they come from or as they are."""

    hidden: torch.Tensor | None = None
    """float[A, D]: what a plain linear head turns into scores; none where the head does more than that."""
    weight: torch.Tensor | None = None
    """float[N, D]: the plain head's weight."""
    bias: torch.Tensor | None = None
    """float[N]: its bias, if it has one."""
    given: torch.Tensor | None = None
    """float[A, N]: scores of a head that is not plain."""
    dtype: torch.dtype | None = None
    """What a plain head's products run in, wherever the scores are used; none is what the tensors have."""

    @property
    def logits(self) -> torch.Tensor:
        """float[A, N], made whole."""
        if self.given is not None:
            return self.given
        hidden, weight, bias = (None if t is None else t.to(self.dtype or t.dtype) for t in self._plain)
        assert hidden is not None
        assert weight is not None
        return linear(hidden, weight, bias)

    def loss(self, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy summed over int64[A] labels, float[]; a plain head never holds more than `CHUNK` scores."""
        if self.given is not None:
            return cross_entropy(self.given.float(), labels, reduction="sum")
        total: torch.Tensor = _ChunkedLoss.apply(*self._plain, (labels, self.dtype))  # type: ignore[no-untyped-call]
        return total

    @property
    def _plain(self) -> tuple[torch.Tensor | None, ...]:
        return self.hidden, self.weight, self.bias


def product_dtype(device: torch.device) -> torch.dtype | None:
    """What autocast runs matrix products in here and now; none without autocast."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


def has_plain_head(language: PreTrainedModel) -> bool:
    """Whether the scores are a linear map of the last hidden states, found by comparing both on noise.

    Some models cap or scale their scores; those go through their own forward.
    """
    head, weight = language.get_output_embeddings(), language.get_input_embeddings().weight
    if not isinstance(head, nn.Linear) or language.base_model is language:
        return False
    if weight.is_meta:
        return getattr(language.config, "final_logit_softcapping", None) is None
    noise = torch.randn(1, 2, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight)
    given: dict[str, Any] = {"inputs_embeds": noise, "segments": _whole(2, weight.device), "use_cache": False}
    training = language.training
    language.eval()
    with torch.no_grad():
        expected = language(**given).logits
        found = head(language.base_model(**given).last_hidden_state)
    language.train(training)
    return torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


class _ChunkedLoss(torch.autograd.Function):
    """Cross-entropy of a linear head, chunk by chunk, with the gradients made on the way.

    Backward has nothing left to compute but a product with the incoming gradient, so no score outlives its chunk.
    Weight gradients are summed in float32, also where the products run in bf16.
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

        From hidden float[A, D], weight float[N, D] and bias float[N], with products in the asked precision.
        """
        labels, dtype = asked
        given = (hidden, weight, bias)
        grads = [_room(*pair) for pair in zip(given, ctx.needs_input_grad, strict=False)]
        # Once for all chunks: the weight is the largest tensor here.
        cast = [None if tensor is None else tensor.to(dtype or tensor.dtype) for tensor in given]
        total = torch.zeros((), device=hidden.device)
        step = max(1, (CHUNK if hidden.is_cuda else min(CHUNK, CPU_CHUNK)) // len(weight))
        for start in range(0, len(hidden), step):
            total += _chunk(cast, labels, grads, slice(start, start + step))
        ctx.save_for_backward(*grads)
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in given]
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, *incoming: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients float[A, D], float[N, D] and float[N] from the incoming float[]."""
        saved, dtypes = ctx.saved_tensors, ctx.dtypes  # type: ignore[attr-defined]
        ready = [None if g is None else g.mul_(incoming[0]).to(d) for g, d in zip(saved, dtypes, strict=True)]
        return (*ready, None)


def _room(tensor: torch.Tensor | None, needed: bool) -> torch.Tensor | None:  # noqa: FBT001 - autograd's own flag
    """Zeros for a gradient that is needed."""
    return torch.zeros_like(tensor, dtype=torch.float32) if tensor is not None and needed else None


def _chunk(
    given: Sequence[torch.Tensor | None], labels: torch.Tensor, grads: list[torch.Tensor | None], part: slice
) -> torch.Tensor:
    """The chunk's loss; its gradients are added to `grads`."""
    whole, weight, bias = given
    assert whole is not None
    assert weight is not None
    hidden, targets = whole[part], labels[part, None]
    scores = linear(hidden, weight, bias).float().log_softmax(dim=-1)
    loss = -scores.gather(1, targets).sum()
    if all(grad is None for grad in grads):
        return loss
    slope = scores.exp_().scatter_add_(1, targets, scores.new_full(targets.shape, -1.0))
    to_hidden, to_weight, to_bias = grads
    if to_bias is not None:
        to_bias += slope.sum(dim=0)
    slope = slope.to(hidden.dtype)
    if to_hidden is not None:
        to_hidden[part] = slope @ weight
    if to_weight is not None:
        to_weight += slope.T @ hidden
    return loss


def _whole(length: int, device: torch.device) -> Segments:
    return Segments(torch.tensor([0, length], dtype=torch.int32, device=device), length)
