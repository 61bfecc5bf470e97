"""By what answers are understood: the kit's rules, and a judge where they do not say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sailvit.evaluation.scoring.judge_prompts import OWN_PROMPTS, JudgePrompt, Use
from sailvit.evaluation.scoring.judging import Judge
from sailvit.evaluation.scoring.matching import NEWEST, Matcher

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Rules:
    """By what answers are understood."""

    matcher: Matcher = NEWEST
    """Version of VLMEvalKit's rules."""
    judge: Judge | None = None
    """Who is asked where rules do not say; None: nobody."""
    prompts: Mapping[Use, JudgePrompt] = field(default_factory=lambda: OWN_PROMPTS)
    """What the judge is asked, by use."""

    @property
    def told_prompts(self) -> dict[str, Any]:
        """The user's prompts by use, with file, hash and text, as results hold them."""
        return {
            use: {"file": each.file, "sha256": each.sha256, "text": each.template}
            for use, each in self.prompts.items()
            if each.file is not None
        }

    def over(self, work: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
        """`work` of every item, in order; several at a time where the judge takes them."""
        if self.judge is None or self.judge.concurrency < 2:
            return [work(item) for item in items]
        with ThreadPoolExecutor(self.judge.concurrency, thread_name_prefix="judging") as pool:
            return list(pool.map(work, items))
