"""Yes or no in an answer, and the scores of HallusionBench, POPE and MME."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sailvit.core.errors import DataError
from sailvit.evaluation.scoring.matching import NEWEST, Matcher
from sailvit.evaluation.scoring.punctuation import without_punctuation

_FIELDS = 6
"""Parts of an index of HallusionBench: category (two), kind of image, set, figure, question."""
PERCEPTION = (
    *("OCR", "artwork", "celebrity", "color", "count", "existence"),
    *("landmark", "position", "posters", "scene"),
)
"""Categories of MME whose sum is `perception`."""
REASONING = (
    *("code_reasoning", "commonsense_reasoning", "numerical_calculation"),
    "text_translation",
)
"""Categories of MME whose sum is `reasoning`."""


@dataclass(frozen=True)
class Verdict:
    """One question of yes or no, answered."""

    index: str
    """The question's index."""
    said: str | None
    """`Yes` or `No`; None: neither or both."""
    answer: str
    """The right answer."""
    category: str = ""
    """Its category; POPE's may be several with commas between."""
    subcategory: str = ""
    """Its `l2-category`."""
    image: str = ""
    """Name of its image, by which MME pairs questions."""

    @property
    def right(self) -> bool:
        """Whether what was said is right."""
        return self.said == self.answer


def infer_yes_no(answer: str, matcher: Matcher = NEWEST) -> str | None:
    """`Yes` or `No`, whichever is a word of the answer; None: neither is, or both are."""
    words = without_punctuation(answer.lower(), matcher).split()
    if ("yes" in words) == ("no" in words):
        return None
    return "Yes" if "yes" in words else "No"


def accuracy(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Per cent right: of all, and per category."""
    scores = {"Overall": _share(verdicts)}
    for name in ("category", "subcategory"):
        for group, members in sorted(_grouped(verdicts, name).items()):
            scores[group] = _share(members)
    return scores


def hallusion_scores(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """HallusionBench in per cent: `aAcc` of the questions; `fAcc` of the figures and `qAcc` of
    the questions in all their figures, each right only as a whole; `Overall`, the mean of the
    three. `name|aAcc` and so on are those of a category.
    """
    three = _three(verdicts)
    scores = {"Overall": float(np.mean(list(three.values()))), **three}
    for name in ("category", "subcategory"):
        for group, members in sorted(_grouped(verdicts, name).items()):
            scores |= {f"{group}|{key}": value for key, value in _three(members).items()}
    return scores


def pope_scores(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """POPE in per cent: `Overall` is F1 of the answer yes; a question counts once in each of
    its categories.
    """
    # One question counts several times in the whole too, as VLMEvalKit counts it.
    single = [(name, each) for each in verdicts for name in each.category.split(",")]
    scores = _detection([each for _, each in single])
    for group in sorted({name for name, _ in single if name}):
        found = _detection([each for name, each in single if name == group])
        scores |= {f"{group}|{key}": value for key, value in found.items()}
    return scores


def mme_scores(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """MME's points: per category the per cent of questions plus the per cent of images with
    both questions right; `perception` and `reasoning` are sums of them, `Overall` of both.
    """
    scores = {}
    if lacking := [each.index for each in verdicts if not each.image]:
        raise DataError(
            f"index {lacking[0]!r} has no image_path; MME pairs the questions about an image by it:"
            " give the official table, or --kind yes-no for plain accuracy"
        )
    for category, members in _grouped(verdicts, "category").items():
        pairs = _grouped(members, "image").values()
        if short := [pair for pair in pairs if len(pair) < 2]:
            raise DataError(
                f"image {short[0][0].image!r} of {category} has one question; MME counts pairs of"
                " questions about an image: give all rows of the set"
            )
        both = np.mean([pair[0].right and pair[1].right for pair in pairs])
        scores[category] = _share(members) + 100 * float(both)
    sums = {
        name: sum(scores.get(category, 0.0) for category in categories)
        for name, categories in (("perception", PERCEPTION), ("reasoning", REASONING))
    }
    return {"Overall": sum(sums.values()), **sums, **scores}


def _three(verdicts: Sequence[Verdict]) -> dict[str, float]:
    figures: defaultdict[tuple[str, ...], list[bool]] = defaultdict(list)
    questions: defaultdict[tuple[str, ...], list[bool]] = defaultdict(list)
    for each in verdicts:
        parts = each.index.split("_")
        if len(parts) < _FIELDS:
            raise DataError(
                f"index {each.index!r} has {len(parts)} parts; expected six parted by _, as in"
                " VD_illusion_1_0_0_1: category, kind, image, set, figure and question"
            )
        # A figure with all its questions, and below a question with all its figures.
        figures[each.subcategory, parts[3], parts[4]].append(each.right)
        questions[each.subcategory, parts[3], parts[5]].append(each.right)
    return {
        "aAcc": _share(verdicts),
        "fAcc": 100 * float(np.mean([all(group) for group in figures.values()])),
        "qAcc": 100 * float(np.mean([all(group) for group in questions.values()])),
    }


def _detection(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """F1, accuracy, precision and recall of yes."""
    true = sum(each.answer == "Yes" and each.said == "Yes" for each in verdicts)
    false = sum(each.answer != "Yes" and each.said == "Yes" for each in verdicts)
    missed = sum(each.answer == "Yes" and each.said != "Yes" for each in verdicts)
    precision = true / (true + false) if true + false else 0.0
    recall = true / (true + missed) if true + missed else 0.0
    both = precision + recall
    return {
        "Overall": 100 * 2 * precision * recall / both if both else 0.0,
        "acc": _share(verdicts),
        "precision": 100 * precision,
        "recall": 100 * recall,
    }


def _share(verdicts: Sequence[Verdict]) -> float:
    return 100 * float(np.mean([each.right for each in verdicts])) if verdicts else 0.0


def _grouped(verdicts: Sequence[Verdict], name: str) -> Mapping[str, list[Verdict]]:
    """By a field that is not empty."""
    groups: defaultdict[str, list[Verdict]] = defaultdict(list)
    for each in verdicts:
        if value := getattr(each, name):
            groups[value].append(each)
    return groups
