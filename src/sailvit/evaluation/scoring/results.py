"""What a scorer gives: a number per answer, and a set's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Way = Literal["rule", "judge", "none"]
"""How an answer was understood: by a rule, by a judge, or not at all."""


@dataclass(frozen=True)
class ScoredAnswer:
    """One answer with what it counts."""

    index: str
    """The question's index."""
    credit: float
    """What it counts, from 0 to 1; a group of rotations counts in its first."""
    understood: str = ""
    """What the scorer took the answer to be: a letter, Yes, a number; empty: nothing."""
    way: Way = "rule"
    """How it was understood."""


@dataclass(frozen=True)
class SetScore:
    """The score of a set of questions."""

    score: float | None
    """The number a leaderboard shows, from 0 to 100 (MME: points); None: there is none, as
    a note says."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """All numbers by name; `split|name` where a set has several splits."""
    answers: tuple[ScoredAnswer, ...] = ()
    """Every unit that counts, in the order of the set."""
    total: int = 0
    """Answers that were looked at."""
    unparsed: int = 0
    """Answers that neither rules nor a judge understood; each counts as a miss."""
    judged: int = 0
    """Answers that a judge decided."""
    notes: tuple[str, ...] = ()
    """What must be said beside the score."""
