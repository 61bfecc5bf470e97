"""Scores a prediction by exact match, in any order where the answer is a set."""

from __future__ import annotations

from collections import Counter

from sailvit.synthetic.world.tasks import READ, TASKS
from sailvit.synthetic.world.vocabulary import COMMA


def normalise(text: str) -> str:
    """`text` in lower case, with single spaces, also around commas."""
    return " ".join(text.lower().replace(COMMA, f" {COMMA} ").split())


def is_correct(task: str, prediction: str, answer: str) -> bool:
    """Whether `prediction` is the answer to a question of `task`; the phrases of a caption may
    stand in any order.
    """
    # A caption lists things, and no order of them is the right one.
    if TASKS[task.removeprefix(READ)].kind == "caption":
        return _phrases(prediction) == _phrases(answer)
    return normalise(prediction) == normalise(answer)


def _phrases(caption: str) -> Counter[str]:
    return Counter(phrase.strip() for phrase in normalise(caption).split(COMMA))
