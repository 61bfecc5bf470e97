"""Training of heads: several learning rates at once, of which the held-out part of the training set
chooses one, and then the whole training set with that one. The test set is never looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sailvit.core.errors import DataError
from sailvit.core.seeding import derive_seed, numpy_generator
from sailvit.evaluation.probes.heads.heads import HEADS, HeadKind, Standardised
from sailvit.evaluation.probes.sets.labelled import Labels, split_by_class

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""Peak learning rates that are tried."""
HELD = 0.1
"""Share of every class of the training set that chooses among them."""
UNLABELLED = -1
"""Label of a patch that does not count."""
_LEAST, _MOST = 16, 1024
"""Fewest and most images of a batch."""
_STEPS = 40
"""Steps of an epoch where the set is not large: small sets get small batches, as ten epochs of
one step each would train nothing."""
_ROWS = 4096
"""Images whose statistics or scores are computed at once."""

Features = NDArray[np.floating]
"""float[N, D] means or float[N, P, D] patch features, memory-mapped."""


@dataclass(frozen=True)
class Fitting:
    """How heads are trained."""

    epochs: int = 10
    """Passes over the training set; the paper's number."""
    rates: tuple[float, ...] = RATES
    """Learning rates to choose from."""
    seed: int = 0
    """Seed of weights, batches and the held-out part."""
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - it is frozen
    """Where heads are trained."""


@dataclass(frozen=True)
class Fitted:
    """A trained head."""

    head: nn.Module
    """Standardisation and head."""
    rate: float
    """The learning rate that was chosen."""
    chosen: float
    """Accuracy on the held-out part of the training set, 0 to 1, with that rate."""


def fit_head(
    kind: HeadKind, features: Features, kept: Labels, labels: Labels, classes: int, *, how: Fitting
) -> Fitted:
    """A head trained on the rows `kept` int64[M] of `features`.

    `labels` int64[M] belong to them, or int64[M, P] to their patches, where `UNLABELLED` ones do
    not count.
    """
    fit, held = held_out(labels, how.seed)
    heads = _trained(kind, features, (kept[fit], labels[fit]), classes, how=how, rates=how.rates)
    # The held-out part chooses and is then trained on as well: a tenth is too much to do without.
    scores = [_accuracy(head, features, kept[held], labels[held], how) for head in heads]
    best = int(np.argmax(scores))
    (head,) = _trained(
        kind, features, (kept, labels), classes, how=how, rates=how.rates[best : best + 1]
    )
    return Fitted(head, how.rates[best], scores[best])


def held_out(labels: Labels, seed: int) -> tuple[Labels, Labels]:
    """Positions of the images that are fitted, and of those that choose rate and layer.

    Raises:
        DataError: no class has two images.
    """
    # Images with a label for every patch are of no class.
    classes = labels if labels.ndim == 1 else np.zeros(len(labels), dtype=np.int64)
    fit, held = split_by_class(classes, HELD, seed, "rate")
    if not len(held):
        raise DataError(
            "every class has one training image; expected two at least in some, as a part chooses"
            " the learning rate"
        )
    return fit, held


@torch.inference_mode()
def head_scores(
    head: nn.Module, features: Features, kept: Labels, device: torch.device
) -> Iterator[torch.Tensor]:
    """float[B, C] at a time: scores of the rows `kept`, in order."""
    rows = _ROWS if features.ndim == 2 else max(1, _ROWS // features.shape[1])
    for at in range(0, len(kept), rows):
        yield head(_taken(features, kept[at : at + rows], device))


def statistics_of(
    features: Features, kept: Labels, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation float[D] of the rows `kept`, over their patches too."""
    # Doubles, since a variance is the small difference of two large sums.
    total = torch.zeros(features.shape[-1], dtype=torch.float64, device=device)
    squares, count = torch.zeros_like(total), 0
    rows = _ROWS if features.ndim == 2 else max(1, _ROWS // features.shape[1])
    for at in range(0, len(kept), rows):
        found = _taken(features, kept[at : at + rows], device).flatten(0, -2).double()
        total += found.sum(dim=0)
        squares += found.square().sum(dim=0)
        count += len(found)
    mean = total / count
    return mean.float(), (squares / count - mean.square()).clamp_min(0).sqrt().float()


def batch_size(count: int) -> int:
    """Images of a batch for a training set of `count`."""
    return max(_LEAST, min(_MOST, count // _STEPS))


def _trained(
    kind: HeadKind,
    features: Features,
    rows: tuple[Labels, Labels],
    classes: int,
    *,
    how: Fitting,
    rates: tuple[float, ...],
) -> list[nn.Module]:
    """A head for each rate, all trained on the same batches of rows of these labels."""
    kept, labels = rows
    norm = Standardised(*statistics_of(features, kept, how.device))
    heads = []
    for _ in rates:
        # Every rate begins at the same weights.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(how.seed, "head", kind))
            heads.append(HEADS[kind](features.shape[-1], classes).to(how.device))
    # All rates in one pass over the batches, which are read from the disk once for all of them.
    steps = Steps([list(head.parameters()) for head in heads], rates, how.epochs, len(kept))
    truth = torch.from_numpy(labels).to(how.device)
    rng = numpy_generator(how.seed, "batches", kind)
    size = batch_size(len(kept))
    for _ in range(how.epochs):
        order = rng.permutation(len(kept))
        for at in range(0, len(order), size):
            # Sorted, as rows of a file are read faster in its order.
            chosen = np.sort(order[at : at + size])
            seen = norm(_taken(features, kept[chosen], how.device))
            wanted = truth[torch.from_numpy(chosen).to(how.device)]
            steps.take([_loss(head(seen), wanted) for head in heads])
    return [nn.Sequential(norm, head).eval() for head in heads]


class Steps:
    """AdamW without weight decay on several heads, each at its own peak rate, on a cosine that ends
    at 0.
    """

    def __init__(
        self,
        parameters: list[list[nn.Parameter]],
        rates: tuple[float, ...],
        epochs: int,
        count: int,
    ) -> None:
        groups = [{"params": own, "lr": rate} for own, rate in zip(parameters, rates, strict=True)]
        self._parameters = [each for own in parameters for each in own]
        self._adam = torch.optim.AdamW(groups, weight_decay=0.0, fused=True)
        steps = epochs * math.ceil(count / batch_size(count))
        self._cosine = torch.optim.lr_scheduler.CosineAnnealingLR(self._adam, max(1, steps))

    def take(self, losses: list[torch.Tensor]) -> None:
        """One step down all losses; heads share no weights, so their sum moves each alone."""
        found = torch.autograd.grad(torch.stack(losses).sum(), self._parameters)
        for parameter, gradient in zip(self._parameters, found, strict=True):
            parameter.grad = gradient
        self._adam.step()
        self._cosine.step()


def _loss(scores: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of scores float[B, C] or float[B, P, C] where there is a label."""
    summed = nn.functional.cross_entropy(
        scores.flatten(0, -2), wanted.flatten(), ignore_index=UNLABELLED, reduction="sum"
    )
    # A batch without any label has no loss, and not that of 0 / 0.
    return summed / (wanted != UNLABELLED).sum().clamp_min(1)


def _accuracy(
    head: nn.Module, features: Features, kept: Labels, labels: Labels, how: Fitting
) -> float:
    guesses = [
        scores.argmax(dim=-1).cpu() for scores in head_scores(head, features, kept, how.device)
    ]
    right = torch.cat(guesses).numpy() == labels
    return float(right.sum() / max(1, (labels != UNLABELLED).sum()))


def _taken(features: Features, rows: Labels, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.asarray(features[rows])).to(device)
