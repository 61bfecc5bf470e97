"""Recognition: which class a picture belongs to, by heads on mean or on all patch features, and by
neighbours. One training serves several test sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sailvit.evaluation.probes.features.extraction import Extracted
from sailvit.evaluation.probes.heads.heads import HeadKind
from sailvit.evaluation.probes.heads.neighbours import neighbour_votes
from sailvit.evaluation.probes.heads.training import (
    Features,
    Fitting,
    fit_head,
    head_scores,
    held_out,
)
from sailvit.evaluation.probes.results import Outcome
from sailvit.evaluation.probes.sets.labelled import Labels
from sailvit.evaluation.probes.sets.opening import LabelledSets

RECOGNITION = ("mlp", "linear", "attentive", "knn")
"""Probes of recognition."""
NEIGHBOURS = 20
"""k of DINO's protocol."""
_LOOKED_AT = 10_000
"""Most held-out training images by which k-NN chooses between layers."""
_TOP = 5


@dataclass(frozen=True)
class Labelled:
    """Features of one layer of a set, and the classes of its images."""

    features: Features
    """float[N, D] or float[N, P, D]."""
    rows: Labels
    """int64[M]: the images whose features are there."""
    labels: Labels
    """int64[M]: their classes."""


@dataclass(frozen=True)
class Recognition:
    """Labelled sets with features of one tower."""

    sets: LabelledSets
    """The sets."""
    train: Extracted
    """Features of the training set."""
    tests: Mapping[str, Extracted]
    """Features of the test sets, by name."""
    how: Fitting
    """How heads are trained."""
    neighbours: int = NEIGHBOURS
    """Images that vote."""

    def outcomes(self, probe: str, layer: int) -> list[Outcome]:
        """Top-1 and top-5 of one probe on one layer, for every test set.

        Raises:
            DataError: there are too few training images.
        """
        train = self._labelled(self.train, self.sets.train.labels, layer, probe)
        tests = {
            name: self._labelled(found, self.sets.answers[name], layer, probe)
            for name, found in self.tests.items()
        }
        if probe == "knn":
            return list(self._neighbours(layer, train, tests))
        return list(self._head(_head_kind(probe), layer, train, tests))

    def _labelled(self, found: Extracted, labels: Labels, layer: int, probe: str) -> Labelled:
        tokens = probe == "attentive"
        features = found.store.tokens(layer) if tokens else found.store.means(layer)
        return Labelled(features, found.kept, labels[found.kept])

    def _head(
        self, kind: HeadKind, layer: int, train: Labelled, tests: Mapping[str, Labelled]
    ) -> Iterator[Outcome]:
        classes = len(self.sets.train.classes)
        fitted = fit_head(kind, train.features, train.rows, train.labels, classes, how=self.how)
        for name, test in tests.items():
            scores = head_scores(fitted.head, test.features, test.rows, self.how.device)
            for metric, hits in right_answers(scores, test.labels, classes).items():
                yield Outcome(
                    kind,
                    layer,
                    self._name(name),
                    metric,
                    hits,
                    chosen=fitted.chosen,
                    settings=f"rate {fitted.rate:g}",
                    main=metric == "top-1",
                )

    def _neighbours(
        self, layer: int, train: Labelled, tests: Mapping[str, Labelled]
    ) -> Iterator[Outcome]:
        classes = len(self.sets.train.classes)

        def votes(bank: Labels, asked: Features, rows: Labels) -> Iterator[torch.Tensor]:
            """Votes of these training images on the rows of `asked`."""
            return neighbour_votes(
                (train.features, train.rows[bank], train.labels[bank]),
                (asked, rows),
                classes,
                neighbours=self.neighbours,
                device=self.how.device,
            )

        # The same images that choose rates of heads, so that all probes choose layers by the same
        # ones.
        fit, held = held_out(train.labels, self.how.seed)
        # Evenly over the set and not its first ones: positions go class by class.
        held = held[:: max(1, len(held) // _LOOKED_AT)]
        chosen = _chosen(votes, train, fit, held, self.neighbours)
        for name, test in tests.items():
            # Images of other classes than the test set's are no neighbours: a mask of votes alone
            # would leave images without any.
            bank = np.flatnonzero(np.isin(train.labels, np.unique(test.labels)))
            found = votes(bank, test.features, test.rows)
            for metric, hits in right_answers(found, test.labels, classes).items():
                yield Outcome(
                    "knn",
                    layer,
                    self._name(name),
                    metric,
                    hits,
                    chosen=chosen,
                    settings=f"k {self.neighbours}",
                    main=metric == "top-1",
                )

    def _name(self, test: str) -> str:
        return f"{self.sets.name}/{test}"


def right_answers(
    scores: Iterator[torch.Tensor], labels: Labels, classes: int
) -> dict[str, np.ndarray]:
    """float32[N] by metric: 1 for every image whose class is the first, or among the first five.

    Scores float[B, C] of classes that no image of the set has do not count: the mask by which
    models of 1000 classes are tested on ImageNet-A's and R's 200.
    """
    held = torch.from_numpy(np.unique(labels))
    mask = torch.full((classes,), float("-inf"))
    mask[held] = 0.0
    first, among, at = [], [], 0
    for each in scores:
        masked = each.cpu().float() + mask
        truth = torch.from_numpy(labels[at : at + len(each)])[:, None]
        ranked = masked.topk(min(_TOP, len(held)), dim=-1).indices == truth
        first.append(ranked[:, 0])
        among.append(ranked.any(dim=-1))
        at += len(each)
    found = {"top-1": torch.cat(first).float().numpy()}
    # With five classes or fewer, every image would be among the first five.
    if len(held) > _TOP:
        found["top-5"] = torch.cat(among).float().numpy()
    return found


def _chosen(
    votes: Callable[[Labels, Features, Labels], Iterator[torch.Tensor]],
    train: Labelled,
    fit: Labels,
    held: Labels,
    neighbours: int,
) -> float | None:
    """Accuracy on held-out training images; None where too few are left to vote."""
    if len(fit) < neighbours:
        return None
    found = torch.cat(list(votes(fit, train.features, train.rows[held])))
    return float((found.argmax(dim=-1).cpu().numpy() == train.labels[held]).mean())


def _head_kind(probe: str) -> HeadKind:
    kinds: Sequence[HeadKind] = ("mlp", "linear", "attentive")
    return next(kind for kind in kinds if kind == probe)
