"""Whether towers differ in a probe: the same images, both towers' counts, an interval and an exact
test, corrected over all that is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sailvit.core.seeding import numpy_generator
from sailvit.evaluation.comparison import LEVEL, Word, holm, paired_p_value
from sailvit.evaluation.probes.results import Outcome, redrawn

_SWAPS = 2000
"""Random exchanges of the towers, image by image, of a test of ratios."""


@dataclass(frozen=True)
class Difference:
    """A tower against the first in one probe on one set."""

    base: str
    """The first tower."""
    other: str
    """The tower."""
    probe: str
    """The probe."""
    set: str
    """The set."""
    metric: str
    """The metric."""
    layers: tuple[int, int]
    """The layer of the first tower, and of the other."""
    difference: float
    """The other's number less the first one's, in points."""
    low: float
    """Lower end of the 95 % interval over the choice of images."""
    high: float
    """Its upper end."""
    n: int
    """Images that both were tested on."""
    p_value: float
    """Chance of a difference as large if it did not matter which tower is which."""
    corrected: float = 1.0
    """The same after Holm's correction."""
    word: Word = "does not differ"
    """What it comes to."""


def differences(towers: Mapping[str, Sequence[Outcome]], seed: int = 0) -> list[Difference]:
    """Every tower against the first, where both have one main outcome for a probe, set and metric,
    and counted the same images; empty for one tower.
    """
    base, *others = towers
    known = {(each.probe, each.set, each.metric): each for each in towers[base]}
    found = [
        _difference(base, other, known[key], each, seed)
        for other in others
        for each in towers[other]
        if each.main
        and (key := (each.probe, each.set, each.metric)) in known
        # An image that one tower could not take leaves a row less, and the rest would not be pairs.
        and known[key].hits.shape == each.hits.shape
    ]
    corrected = holm([each.p_value for each in found])
    return [
        replace(each, corrected=p, word=_word(each.difference, p))
        for each, p in zip(found, corrected, strict=True)
    ]


def _difference(base: str, other: str, one: Outcome, two: Outcome, seed: int) -> Difference:
    rng = numpy_generator(seed, "probe", base, other, one.probe, one.set, one.metric)
    if one.possible is None and two.possible is None:
        apart = (two.hits - one.hits).astype(np.float64)
        low, high = _mean_interval(apart, rng)
        p_value = paired_p_value(apart, rng)
    else:
        low, high = _ratio_interval(one, two, rng)
        p_value = _swap_p_value(one, two, rng)
    return Difference(
        base,
        other,
        one.probe,
        one.set,
        one.metric,
        (one.layer, two.layer),
        difference=two.value - one.value,
        low=low,
        high=high,
        n=one.count,
        p_value=p_value,
    )


def _mean_interval(apart: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The interval of a mean, in points; where images only gain, lose or stay, by their numbers."""
    count = len(apart)
    values, counts = np.unique(apart, return_counts=True)
    if len(values) <= 3:
        drawn = rng.multinomial(count, counts / count, size=10_000) @ values / count
    else:
        drawn = np.concatenate([weights @ apart / count for weights in redrawn(count, rng)])
    low, high = np.quantile(drawn, (0.025, 0.975))
    return 100 * float(low), 100 * float(high)


def _ratio_interval(one: Outcome, two: Outcome, rng: np.random.Generator) -> tuple[float, float]:
    drawn = np.concatenate(
        [two.weighted(weights) - one.weighted(weights) for weights in redrawn(one.count, rng)]
    )
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return 100 * float(low), 100 * float(high)


def _swap_p_value(one: Outcome, two: Outcome, rng: np.random.Generator) -> float:
    """How often a difference as large comes when the towers are exchanged at random, image by
    image.
    """
    # A little less than seen, as an exchange that changes nothing must count and sums may round.
    observed = abs(two.value - one.value) / 100 - 1e-9
    beyond = 0
    for _ in range(_SWAPS):
        taken = rng.random(one.count) < 0.5
        mine, yours = one.mixed(two, taken), one.mixed(two, ~taken)
        beyond += abs(mine - yours) >= observed
    # One is added, as what was observed is one of the exchanges: never 0.
    return (beyond + 1) / (_SWAPS + 1)


def _word(difference: float, p_value: float) -> Word:
    if p_value > LEVEL:
        return "does not differ"
    return "improves" if difference > 0 else "worse"
