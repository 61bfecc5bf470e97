"""Judges: models that are asked what an answer means, or how right it is, where rules cannot say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sailvit.core.errors import DataError

FAILED = "Failed to obtain answer via API"
"""Begins what VLMEvalKit writes where a model or a judge gave no answer."""


@dataclass(frozen=True)
class Inquiry:
    """One request to a judge."""

    index: str
    """Index of the question whose answer is judged."""
    prompt: str
    """What the judge is asked."""
    attempt: int
    """How often it was asked before and gave no usable reply."""
    temperature: float
    """Sampling temperature; it grows with the attempts where VLMEvalKit lets it grow."""


class Judge(Protocol):
    """What replies to inquiries."""

    name: str
    """Its name, printed beside every score that it took part in."""
    concurrency: int
    """Inquiries that it takes at the same time."""

    def reply(self, inquiry: Inquiry) -> str | None:
        """Its reply; None: it gave none."""


class CannedJudge:
    """Replies from a file, the n-th one to the n-th attempt about a question."""

    concurrency = 1

    def __init__(self, name: str, replies: Mapping[str, Sequence[str]]) -> None:
        self.name = name
        self._replies = replies

    def reply(self, inquiry: Inquiry) -> str | None:
        """The reply written for this attempt; the last one for attempts beyond."""
        known = self._replies.get(inquiry.index)
        # A file with one reply stands for a judge that says the same whenever it is asked.
        return known[min(inquiry.attempt, len(known) - 1)] if known else None


@dataclass
class Estimate:
    """A judge that replies nothing and counts what would be asked, to tell the cost before."""

    name: str = "estimate"
    """Its name."""
    concurrency: int = 1
    """Inquiries at the same time."""
    characters: dict[str, int] = field(default_factory=dict)
    """Length of the first prompt about each question."""

    def reply(self, inquiry: Inquiry) -> str | None:
        """None, after counting."""
        self.characters.setdefault(inquiry.index, len(inquiry.prompt))
        return None


def asked(judge: Judge, inquiry: Inquiry) -> str | None:
    """The judge's reply; None for none, and for the text by which VLMEvalKit's own judges say
    so.
    """
    reply = judge.reply(inquiry)
    return None if reply is None or FAILED in reply else reply


def read_canned(path: Path) -> CannedJudge:
    """Replies from JSON lines `{"index": ..., "reply": "B"}`; `reply` may be a list, one entry
    per attempt.
    """
    replies: dict[str, list[str]] = {}
    try:
        # Not by `splitlines`, which also ends lines at a reply's U+2028 or U+0085.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected JSON lines") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            given = entry["reply"]
            replies[str(entry["index"])] = list(given) if isinstance(given, list) else [given]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f'{path} line {number} is not {{"index": ..., "reply": ...}}; expected a'
                " question's index and a reply or a list of replies"
            ) from error
    return CannedJudge(
        path.name, {index: [str(each) for each in r] for index, r in replies.items()}
    )
