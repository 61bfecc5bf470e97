"""OCRBench: a right answer counts wherever it stands in what was answered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sailvit.core.errors import DataError

FORMULAS = "Handwritten Mathematical Expression Recognition"
"""The category whose answers keep their case and lose their blanks."""
RECOGNITION = (
    "Regular Text Recognition",
    "Irregular Text Recognition",
    "Artistic Text Recognition",
    "Handwriting Recognition",
    "Digit String Recognition",
    "Non-Semantic Text Recognition",
)
"""Categories that are summed as `Text Recognition`."""
CATEGORIES = (
    *RECOGNITION,
    "Scene Text-centric VQA",
    "Doc-oriented VQA",
    "Key Information Extraction",
    FORMULAS,
)
"""All categories of OCRBench."""


def is_read(answer: str, golds: Sequence[str], category: str) -> bool:
    """Whether a right answer is part of what was answered; also inside a word."""
    return any(_plain(gold, category) in _plain(answer, category) for gold in golds)


def ocr_scores(hits: Iterable[tuple[str, bool]]) -> dict[str, float]:
    """Hits per group, their sum `Final Score` (of 1000 in the official set) and a tenth of it;
    `hits` are pairs of category and hit.
    """
    counts = dict.fromkeys(CATEGORIES, 0)
    for category, hit in hits:
        # A miss of an unknown category changes nothing, so only a hit must be refused.
        if category not in counts and hit:
            raise DataError(
                f"{category!r} is no category of OCRBench; expected one of {', '.join(CATEGORIES)}"
            )
        if hit:
            counts[category] += 1
    scores: dict[str, float] = {"Text Recognition": sum(counts[name] for name in RECOGNITION)}
    scores |= {name: counts[name] for name in CATEGORIES if name not in RECOGNITION}
    total = sum(counts.values())
    # The official set has 1000 questions, so that a tenth is per cent.
    return {**scores, "Final Score": total, "Final Score Norm": total / 10}


def _plain(text: str, category: str) -> str:
    if category == FORMULAS:
        return text.strip().replace("\n", " ").replace(" ", "")
    return text.lower().strip().replace("\n", " ")
