"""Segmentation: a linear layer says of every frozen patch what it shows, scored pixel by pixel.

The layer learns the class that most pixels of a patch have. Its scores are enlarged to the label
map, bilinearly, and compared there: mean intersection over union of all classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sailvit.core.bad_records import UNUSABLE
from sailvit.core.errors import DataError, one_line
from sailvit.data.processing.label_maps import LabelMap
from sailvit.evaluation.probes.features.extraction import Extracted
from sailvit.evaluation.probes.heads.training import UNLABELLED, Fitting, fit_head, head_scores
from sailvit.evaluation.probes.results import Outcome
from sailvit.evaluation.probes.sets.labelled import Labels
from sailvit.evaluation.probes.sets.maps import Mapped, MapSets

_POINTS = 8
"""Places per side of a patch at which its label map is read."""
_LARGEST = 512
"""Longest side, in pixels, at which scores and label maps are compared."""


@dataclass(frozen=True)
class MapLabels:
    """The label maps of a set as labels of patches."""

    patches: Labels
    """int64[N, P]: the class of most places of every patch, by its number in the file."""
    values: tuple[int, ...]
    """Numbers that occur."""
    unusable: dict[int, str]
    """Why a map cannot be used, by position."""


@dataclass(frozen=True)
class Segmentation:
    """Label maps with features of one tower."""

    sets: MapSets
    """The maps."""
    side: int
    """Patches of an image per side."""
    train: Extracted
    """Features of the training set."""
    tests: dict[str, Extracted]
    """Features of the test sets, by name."""
    labels: MapLabels
    """Labels of the training set's patches."""
    how: Fitting
    """How the head is trained."""
    unusable: dict[str, int] = field(default_factory=dict)
    """Maps that cannot be used, by test set; known when a layer was scored."""

    @property
    def classes(self) -> tuple[int, ...]:
        """Numbers of the classes: those of the training set that count."""
        return tuple(value for value in self.labels.values if value not in self.sets.ignored)

    def outcomes(self, probe: str, layer: int) -> list[Outcome]:
        """Mean IoU and the share of right pixels on one layer, for every test set.

        Raises:
            DataError: there are fewer than two classes, or no usable map.
        """
        del probe
        if len(self.classes) < 2:
            raise DataError(
                f"label maps of {self.sets.name} hold {len(self.classes)} classes that count;"
                " expected two at least"
            )
        usable = [row for row in self.train.kept.tolist() if row not in self.labels.unusable]
        kept = np.array(usable, dtype=np.int64)
        numbers = _numbers(self.classes, self.labels.values)
        labels = numbers[self.labels.patches[kept]]
        tokens, count = self.train.store.tokens(layer), len(self.classes)
        fitted = fit_head("segmentation", tokens, kept, labels, count, how=self.how)
        found = []
        for name, test in self.tests.items():
            hits, bad = _Hits(count), 0
            scores = head_scores(fitted.head, test.store.tokens(layer), test.kept, self.how.device)
            rows = (row for block in scores for row in block)
            for place, row in zip(test.kept.tolist(), rows, strict=True):
                try:
                    hits.add(row, self.sets.tests[name].labels(place), self)
                except UNUSABLE:
                    bad += 1
            self.unusable[name] = bad
            found += hits.outcomes(
                layer,
                f"{self.sets.name}/{name}",
                chosen=fitted.chosen,
                settings=f"rate {fitted.rate:g}",
            )
        return found


class _Hits:
    """Intersections and unions of every class, image by image."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._both: list[NDArray[np.float32]] = []
        self._either: list[NDArray[np.float32]] = []

    def add(self, scores: torch.Tensor, labels: LabelMap, run: Segmentation) -> None:
        """Add an image with scores float[P, C] of its patches."""
        height, width = shown_size(labels.shape)
        truth = torch.from_numpy(sampled(labels, height, width)).to(scores.device)
        grid = scores.T.reshape(1, self._classes, run.side, run.side)
        enlarged = nn.functional.interpolate(
            grid, size=(height, width), mode="bilinear", align_corners=False
        )
        guess = enlarged[0].argmax(dim=0)
        values = torch.tensor(run.classes, device=scores.device)
        # A number above all classes is put to the last one, and the comparison below takes it out.
        place = torch.searchsorted(values, truth.long()).clamp_max(self._classes - 1)
        # Numbers that training never had cannot be guessed, and do not count.
        counts = values[place] == truth
        # One count of pairs gives intersections and unions of all classes in one pass over the
        # pixels.
        pairs = place[counts] * self._classes + guess[counts]
        table = torch.bincount(pairs, minlength=self._classes**2).reshape(self._classes, -1)
        both = table.diagonal()
        self._both.append(both.cpu().numpy().astype(np.float32))
        either = table.sum(dim=0) + table.sum(dim=1) - both
        self._either.append(either.cpu().numpy().astype(np.float32))

    def outcomes(self, layer: int, name: str, *, chosen: float, settings: str) -> list[Outcome]:
        """What the images come to."""
        if not self._both:
            raise DataError(f"no label map of {name} can be used")
        both, either = np.stack(self._both), np.stack(self._either)
        # Every pixel is in the union of one class, or of two where it is wrong.
        right, pixels = both.sum(axis=1), (either.sum(axis=1) + both.sum(axis=1)) / 2
        made = partial(Outcome, "segmentation", layer, name, chosen=chosen, settings=settings)
        return [
            made(metric="mIoU", hits=both, possible=either),
            made(metric="pixels", hits=right, possible=pixels, main=False),
        ]


def patch_labels(images: Mapped, side: int, ignored: Sequence[int], threads: int) -> MapLabels:
    """Labels of the patches of all images of a set, `side` per side.

    A patch most of whose places are of an ignored number has that number.
    """
    # Rows of maps that cannot be read stay without labels, as rows of features keep their places.
    patches = np.full((len(images), side * side), UNLABELLED, dtype=np.int64)
    values: set[int] = set()
    unusable: dict[int, str] = {}
    with ThreadPoolExecutor(threads, thread_name_prefix="maps") as pool:
        for position, made in enumerate(
            pool.map(partial(_patches_of, images, side), range(len(images)))
        ):
            if isinstance(made, str):
                unusable[position] = made
            else:
                patches[position], found = made
                values.update(found)
    if not values - set(ignored):
        reason = f": {next(iter(unusable.values()))}" if unusable else ""
        raise DataError(f"no label map of {len(images)} has a class that counts{reason}")
    return MapLabels(patches, tuple(sorted(values)), unusable)


def _patches_of(
    images: Mapped, side: int, position: int
) -> tuple[NDArray[np.int64], list[int]] | str:
    """int64[P]: the number of most places of every patch, and the numbers that occur."""
    try:
        read = images.labels(position)
    except UNUSABLE as error:
        return one_line(error)
    points = sampled(read, side * _POINTS, side * _POINTS)
    values, inverse = np.unique(points, return_inverse=True)
    cells = inverse.reshape(side, _POINTS, side, _POINTS).transpose(0, 2, 1, 3)
    grid = cells.reshape(side * side, _POINTS**2)
    # A number per patch and class, so that one `bincount` finds the majority in all patches.
    flat = (np.arange(side * side)[:, None] * len(values) + grid).ravel()
    counts = np.bincount(flat, minlength=side * side * len(values)).reshape(-1, len(values))
    return values[counts.argmax(axis=1)].astype(np.int64), values.tolist()


def sampled(labels: LabelMap, height: int, width: int) -> LabelMap:
    """int32[H, W]: a label map at another size, by its nearest pixels."""
    rows = ((np.arange(height) + 0.5) * labels.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * labels.shape[1] / width).astype(int)
    found: LabelMap = labels[rows[:, None], columns[None]]
    return found


def shown_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width at which an image is scored: its own, or with a longest side of 512."""
    scale = min(1.0, _LARGEST / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _numbers(classes: Sequence[int], values: Sequence[int]) -> Labels:
    """A table from numbers in the files, of which -1 is the last, to numbers of classes."""
    # One place more than numbers need: -1, of patches without a label, is the last one.
    table = np.full(max(values) + 2, UNLABELLED, dtype=np.int64)
    table[list(classes)] = np.arange(len(classes))
    return table
