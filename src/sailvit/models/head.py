"""The language's head: scores over the vocabulary at answer positions, and the loss without holding them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.function import FunctionCtx
from torch.nn.functional import cross_entropy, linear
from transformers import PreTrainedModel

from sailvit.models.attention import Segments

CHUNK = 1 << 24
"""Most scores held at once, in elements: 64 MiB in float32, so about 110 positions of a vocabulary of 150,000."""


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

    @property
    def logits(self) -> torch.Tensor:
        """float[A, N], made whole."""
        if self.given is not None:
            return self.given
        assert self.hidden is not None
        assert self.weight is not None
        return linear(self.hidden, self.weight, self.bias)

    def loss(self, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy summed over int64[A] labels, float[]; a plain head never holds more than `CHUNK` scores."""
        if self.given is not None:
            return cross_entropy(self.given.float(), labels, reduction="sum")
        total: torch.Tensor = _ChunkedLoss.apply(  # type: ignore[no-untyped-call]
            self.hidden, self.weight, self.bias, labels
        )
        return total


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
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor
    ) -> torch.Tensor:
        """float[], of shape (): the sum over int64[A] labels, from hidden float[A, D], weight float[N, D], bias float[N]."""
        wanted = ctx.needs_input_grad
        grads = [
            torch.zeros_like(tensor, dtype=torch.float32) if tensor is not None and needed else None
            for tensor, needed in zip((hidden, weight, bias), wanted, strict=False)
        ]
        total = torch.zeros((), device=hidden.device)
        step = max(1, CHUNK // len(weight))
        for start in range(0, len(hidden), step):
            part = slice(start, start + step)
            total += _chunk(hidden[part], weight, bias, labels[part], grads=grads, part=part)
        ctx.save_for_backward(*grads)
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (hidden, weight, bias)]
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, *incoming: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients float[A, D], float[N, D] and float[N] from the incoming float[]."""
        saved, dtypes = ctx.saved_tensors, ctx.dtypes  # type: ignore[attr-defined]
        ready = [None if g is None else g.mul_(incoming[0]).to(d) for g, d in zip(saved, dtypes, strict=True)]
        return (*ready, None)


def _chunk(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    *,
    grads: list[torch.Tensor | None],
    part: slice,
) -> torch.Tensor:
    """The chunk's loss; its gradients are added to `grads`."""
    logits = linear(hidden, weight, bias).float()
    loss = cross_entropy(logits, labels, reduction="sum")
    if all(grad is None for grad in grads):
        return loss
    slope = logits.softmax(dim=-1)
    slope[torch.arange(len(labels), device=labels.device), labels] -= 1
    to_hidden, to_weight, to_bias = grads
    if to_hidden is not None:
        to_hidden[part] = slope.to(hidden.dtype) @ weight
    if to_weight is not None:
        to_weight += slope.to(hidden.dtype).T @ hidden
    if to_bias is not None:
        to_bias += slope.sum(dim=0)
    return loss


def _whole(length: int, device: torch.device) -> Segments:
    return Segments(torch.tensor([0, length], dtype=torch.int32, device=device), length)
