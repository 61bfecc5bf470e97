"""What every objective is: a loss term that is a sum over units, divided by the count of those
units in the whole step.

Because numerator and denominator are both global, one batch of eight packs, eight accumulated
batches of one and eight processes with one each give the same gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import nn

from sailvit.core.batch import Batch
from sailvit.core.recipe import Recipe
from sailvit.models.structure.mllm import MLLM, Activations


class Objective(nn.Module, ABC):
    """One loss term. Its own parameters, if any, train at the stage's full rate without decay."""

    needs_logits = False
    """Whether the language must run."""
    needs_routers = False
    """Whether the scores of the language's experts are needed."""
    spans_step = False
    """Whether terms span the whole step: `prepare` computes the visual tokens of every
    micro-batch, so that the tower may run twice."""

    needs_pairs = False
    """Whether its units are captions of one image."""
    holds_base = False
    """Whether it holds the recipe's own tower, frozen, beside the one that trains."""

    def set_up(self, recipe: Recipe) -> None:
        """Called with the run's recipe before training; most objectives need nothing of it."""

    @abstractmethod
    def units(self, batch: Batch) -> int:
        """Number of terms this batch adds to the sum."""

    def prepare(self, model: MLLM, batches: Sequence[Batch]) -> None:
        """Called with all micro-batches of a step before the first of them runs; most
        objectives need nothing.
        """

    @abstractmethod
    def forward(self, model: MLLM, activations: Activations, batch: Batch) -> torch.Tensor:
        """The batch's sum of terms: float[], a scalar of shape ()."""
