"""Whether a prediction is right: exact match, order-insensitive where the answer is a set."""

from __future__ import annotations

from collections import Counter

from sailvit.synthetic.world.tasks import READ, TASKS
from sailvit.synthetic.world.vocabulary import COMMA


def normalise(text: str) -> str:
    """`text` in lower case with single spaces, commas set apart."""
    return " ".join(text.lower().replace(COMMA, f" {COMMA} ").split())


def is_correct(task: str, prediction: str, answer: str) -> bool:
    """Whether `prediction` answers a question of `task`; captions may name their phrases in any
    order.
    """
    if TASKS[task.removeprefix(READ)].kind == "caption":
        return _phrases(prediction) == _phrases(answer)
    return normalise(prediction) == normalise(answer)


def _phrases(caption: str) -> Counter[str]:
    return Counter(phrase.strip() for phrase in normalise(caption).split(COMMA))
