"""What a probe finds: counts for every image, the number they come to, and its interval."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sailvit.core.seeding import numpy_generator

Probe = Literal[
    "mlp",
    "linear",
    "attentive",
    "knn",
    "zero-shot",
    "segmentation",
    "correspondence",
    "retrieval",
    "connector-retrieval",
]
"""A probe."""
DRAWS = 1000
"""Redrawn sets of an interval."""
_CELLS = 1 << 23
"""Most weights drawn at once, 32 MB."""


@dataclass(frozen=True)
class Outcome:
    """One number of one probe on one set.

    It is the mean over columns of hits / possible, summed over images each: of right answers with
    one column of ones, of intersection over union with a column per class.
    """

    probe: Probe
    """The probe."""
    layer: int
    """The layer whose features it saw, counted from 1; -1: what the whole model makes of them."""
    set: str
    """The set it was tested on."""
    metric: str
    """What is counted: `top-1`, `mIoU`, `R@5 image to text`, ..."""
    hits: NDArray[np.float32]
    """float32[N] or float32[N, C]: what every image counts."""
    possible: NDArray[np.float32] | None = None
    """Of the same shape: what it could count; None: one."""
    chosen: float | None = None
    """What decides between layers, without the test set: accuracy on the held-out part of the
    training set; None where nothing is trained, so the number itself decides."""
    settings: str = ""
    """How it was trained, as the learning rate that was chosen."""
    main: bool = True
    """Whether towers are compared in it; False: it goes along with another that they are compared
    in, as top-5 does with top-1."""

    @property
    def count(self) -> int:
        """Images, or texts."""
        return len(self.hits)

    @property
    def value(self) -> float:
        """The number, in percent."""
        return 100 * float(self.weighted(np.ones((1, self.count), np.float32))[0])

    @property
    def binary(self) -> bool:
        """Whether every image is right or wrong."""
        return self.possible is None and bool(np.isin(self.hits, (0, 1)).all())

    def interval(self, seed: int = 0) -> tuple[float, float]:
        """Its 95 % interval over the choice of images, in percent."""
        rng = numpy_generator(seed, "probe", self.probe, self.layer, self.set, self.metric)
        if self.binary:
            # Redrawn images of which each is right or wrong: the number right is binomial.
            drawn = rng.binomial(self.count, self.hits.mean(), 10_000) / self.count
        else:
            drawn = np.concatenate([self.weighted(weights) for weights in redrawn(self.count, rng)])
        # A redrawn set may hold no image of any class that counts, and then has no number.
        low, high = np.nanquantile(drawn, (0.025, 0.975))
        return 100 * float(low), 100 * float(high)

    def weighted(self, weights: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64[K]: the number, 0 to 1, for K weightings float32[K, N] of the images."""
        hits = self.hits.reshape(self.count, -1)
        if self.possible is None:
            return _ratio(weights @ hits, weights.sum(axis=1, keepdims=True))
        return _ratio(weights @ hits, weights @ self.possible.reshape(self.count, -1))

    def mixed(self, other: Outcome, taken: NDArray[np.bool_]) -> float:
        """The number, 0 to 1, of this one's images where `taken` bool[N], of the other's elsewhere."""
        own, theirs = (taken[None].astype(np.float32), (~taken)[None].astype(np.float32))
        sums = [
            own @ _columns(mine) + theirs @ _columns(yours)
            for mine, yours in ((self.hits, other.hits), (self._could, other._could))
        ]
        return float(_ratio(*sums)[0])

    @property
    def _could(self) -> NDArray[np.float32]:
        return np.ones_like(self.hits) if self.possible is None else self.possible

    def row(self, tower: str, seed: int = 0) -> dict[str, Any]:
        """Its entry of probe.json."""
        low, high = self.interval(seed)
        return asdict(
            Row(
                tower,
                self.probe,
                self.layer,
                self.set,
                self.metric,
                value=round(self.value, 4),
                low=round(low, 4),
                high=round(high, 4),
                n=self.count,
            )
        )


@dataclass(frozen=True)
class Row:
    """An entry of probe.json."""

    tower: str
    """The tower's name."""
    probe: str
    """The probe."""
    layer: int
    """The layer, counted from 1; -1: what the whole model makes."""
    set: str
    """The set."""
    metric: str
    """The metric."""
    value: float
    """In percent."""
    low: float
    """Lower end of the 95 % interval over the choice of images."""
    high: float
    """Its upper end."""
    n: int
    """Images, or texts, that were counted."""


def redrawn(count: int, rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """Weights float32[K, N] at a time: how often each of `count` images is in a redrawn set."""
    # A thousand weightings of a million images would take 4 GB at once.
    at_once = max(1, min(DRAWS, _CELLS // count))
    share = np.full(count, 1 / count)
    return [
        rng.multinomial(count, share, size=min(at_once, DRAWS - start)).astype(np.float32)
        for start in range(0, DRAWS, at_once)
    ]


def _columns(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.reshape(len(values), -1)


def _ratio(hits: NDArray[Any], possible: NDArray[Any]) -> NDArray[np.float64]:
    """float64[K]: the mean over columns, of those that could count anything."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = np.nanmean(
            # A class that no image holds has no intersection over union, and must not count as 0.
            np.where(possible > 0, hits / possible, np.nan),
            axis=1,
        )
    return found
