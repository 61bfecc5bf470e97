"""Whether models differ on sets that all of them answered: paired differences with bootstrap
intervals, exact tests, and Holm's correction over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sailvit.core.errors import DataError
from sailvit.core.seeding import numpy_generator
from sailvit.evaluation.scoring.results import ScoredAnswer

Word = Literal["improves", "does not differ", "worse"]
"""What a comparison comes to; `does not differ`: no difference was shown, equal or not."""
LEVEL = 0.05
"""Chance of calling any of the pairs different where none is."""
_DRAWS = 10_000
"""Redrawn sets of an interval, and sign flips of a test of fractions."""
_CELLS = 1 << 22
"""Most numbers drawn at once, 32 MB."""


@dataclass(frozen=True)
class Comparison:
    """One model against another on one set."""

    questions: str
    """The set."""
    base: str
    """The model compared with."""
    other: str
    """The model."""
    count: int
    """Questions, or groups of rotations, that both answered."""
    difference: float
    """Mean credit of the model minus that of the other, in points."""
    low: float
    """Lower end of the 95 % interval over the choice of questions, in points."""
    high: float
    """Its upper end."""
    gained: int
    """Questions on which the model has more credit."""
    lost: int
    """Questions on which it has less."""
    p_value: float
    """Chance of a difference as large if both were equal; McNemar's exact test where credits
    are 0 or 1, else sign flips."""
    corrected: float = 1.0
    """The same after Holm's correction."""
    word: Word = "does not differ"
    """What it comes to."""


def compare_models(
    models: Mapping[str, Mapping[str, Sequence[ScoredAnswer]]], *, seed: int = 0
) -> list[Comparison]:
    """Every model against the first, on every set that both answered.

    `models` holds answers by model and set. Credits of questions are compared, each for itself:
    for most sets their mean is the score, HallusionBench's, POPE's and MME's scores count groups
    as well.

    Raises:
        DataError: there is nothing to compare, or two models answered other questions.
    """
    base, *others = models
    found = [
        _compared(name, (base, other), (models[base][name], models[other][name]), seed)
        for other in others
        for name in models[base]
        if name in models[other]
    ]
    if not found:
        raise DataError("there is nothing to compare; expected two models with a set in common")
    corrected = holm([each.p_value for each in found])
    return [
        replace(each, corrected=p, word=_word(each.difference, p))
        for each, p in zip(found, corrected, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """The values after Holm's correction, in the same order."""
    corrected, highest = [0.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for place, index in enumerate(order):
        # Never below the value before it: a larger p value must not be corrected to a smaller one.
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = highest
    return corrected


def paired_p_value(differences: NDArray[np.float64], rng: np.random.Generator) -> float:
    """Two-sided chance of a mean as far from 0 if the sign of each difference were random."""
    changed = differences[differences != 0]
    if not len(changed):
        return 1.0
    # McNemar's test: questions on which both are right, or both wrong, say nothing.
    if np.all(np.abs(changed) == 1):
        more = int((changed > 0).sum())
        return float(stats.binomtest(more, len(changed), 0.5).pvalue)
    # The same numbers added in another order may differ in their last bits.
    observed = abs(changed.sum()) - 1e-9
    at_once = max(1, _CELLS // len(changed))
    beyond = 0
    for start in range(0, _DRAWS, at_once):
        signs = rng.choice((-1.0, 1.0), size=(min(at_once, _DRAWS - start), len(changed)))
        beyond += int((np.abs(signs @ changed) >= observed).sum())
    # One is added, as the observed signs are one of the draws: never 0.
    return (beyond + 1) / (_DRAWS + 1)


def _compared(
    name: str,
    pair: tuple[str, str],
    answers: tuple[Sequence[ScoredAnswer], Sequence[ScoredAnswer]],
    seed: int,
) -> Comparison:
    one, other = ({each.index: each.credit for each in some} for some in answers)
    if one.keys() != other.keys():
        raise DataError(
            f"{pair[0]} and {pair[1]} answered other questions of {name} ({len(one)} and"
            f" {len(other)}, {len(one.keys() & other.keys())} in common); expected the same"
        )
    differences = np.array([other[index] - one[index] for index in one])
    low, high = _interval(differences, numpy_generator(seed, "comparison", name, *pair))
    return Comparison(
        questions=name,
        base=pair[0],
        other=pair[1],
        count=len(differences),
        difference=100 * float(differences.mean()),
        low=100 * low,
        high=100 * high,
        gained=int((differences > 0).sum()),
        lost=int((differences < 0).sum()),
        p_value=paired_p_value(differences, numpy_generator(seed, "signs", name, *pair)),
    )


def _interval(differences: NDArray[np.float64], rng: np.random.Generator) -> tuple[float, float]:
    """A 95 % interval of the mean: the questions redrawn, the same for both models."""
    count = len(differences)
    # In blocks: ten thousand draws of 100,000 questions would take 8 GB at once.
    at_once = max(1, _CELLS // count)
    means = [
        rng.choice(differences, size=(min(at_once, _DRAWS - start), count)).mean(axis=1)
        for start in range(0, _DRAWS, at_once)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


def _word(difference: float, p_value: float) -> Word:
    if p_value > LEVEL:
        return "does not differ"
    return "improves" if difference > 0 else "worse"
