"""The caption judge: a score for every record of a source, as JSONL that the `scores` filter
reads.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sailvit.core.atomic import whole_file
from sailvit.core.records import Source
from sailvit.dataprep.annotate.prompts import prompt_record
from sailvit.dataprep.annotate.replies import Asked, Responder, ask_about

Scale = Literal["1-5", "yes-no"]
SCALES: tuple[Scale, ...] = ("1-5", "yes-no")
"""Answers that a criterion may ask for; `yes` scores 1 and `no` 0."""


@dataclass(frozen=True)
class Criterion:
    """The question by which records are judged."""

    name: str
    """Its name, which every line of scores holds."""
    prompt: str
    """The prompt, with `{caption}` in it."""
    scale: Scale = "1-5"
    """Which answers are allowed."""

    def score(self, text: str) -> int | None:
        """The score in an answer; None: it holds no score or several."""
        return _digit(text) if self.scale == "1-5" else _yes_or_no(text)


@dataclass
class JudgeCounts:
    """Counts of a finished judgement."""

    scores: Counter[int] = field(default_factory=Counter)
    """Records per score."""
    bad: int = 0
    """Answers that hold no score or several."""
    failed: int = 0
    """Records that could not be read or got no answer."""


def judge(
    source: Source,
    name: str,
    criterion: Criterion,
    responder: Responder,
    *,
    out: Path,
    positions: Iterable[int] | None = None,
    report: Callable[[], None] = lambda: None,
) -> JudgeCounts:
    """Judge the records of `source` and write one line per record to `out`, in order; lines
    call the source `name`.

    The file appears when it is complete. Bad answers and failures get a line without a score.
    `report` is called once per record.
    """
    chosen = range(len(source)) if positions is None else positions
    counts = JudgeCounts()
    asked = ask_about(
        source, lambda record, _: prompt_record(record, criterion.prompt), responder, chosen
    )
    with whole_file(out) as draft, draft.open("w", encoding="utf-8") as file:
        for item in asked:
            line = _line(item, name, criterion, counts)
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            report()
    return counts


def _line(item: Asked, name: str, criterion: Criterion, counts: JudgeCounts) -> dict[str, Any]:
    # A record that cannot be read has no id. It gets an empty one, as the `scores` filter wants
    # all lines to have an id or none.
    line: dict[str, Any] = {
        "source": name,
        "position": item.position,
        "id": item.record.id if item.record else "",
    }
    line["question"] = criterion.name
    if item.reply.error is not None:
        counts.failed += 1
        return {**line, "score": None, "raw": "", "error": item.reply.error}
    score = criterion.score(item.reply.text)
    if score is None:
        counts.bad += 1
        return {
            **line,
            "score": None,
            "raw": item.reply.text,
            "error": f"no single answer on the scale {criterion.scale}",
        }
    counts.scores[score] += 1
    return {**line, "score": score, "raw": item.reply.text}


def _digit(text: str) -> int | None:
    """The number in a text that holds only one, if it is one of 1 to 5; `4/5` and `4 out of 5`
    count as 4.
    """
    plain = re.sub(r"(?<=\d)\s*(?:/|out of)\s*5\b", "", text)
    numbers = set(re.findall(r"\d+(?:\.\d+)?", plain))
    return int(numbers.pop()) if len(numbers) == 1 and numbers <= set("12345") else None


def _yes_or_no(text: str) -> int | None:
    # A set: "yes, yes" is one answer, "yes or no" is none.
    words = {word for word in re.findall(r"[a-z]+", text.lower()) if word in ("yes", "no")}
    return {"yes": 1, "no": 0}[words.pop()] if len(words) == 1 else None
