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
"""What may be answered; `yes` scores 1 and `no` 0."""


@dataclass(frozen=True)
class Criterion:
    """What records are judged by."""

    name: str
    """Stands in every line of scores."""
    prompt: str
    """What the model is asked, with `{caption}` in it."""
    scale: Scale = "1-5"
    """How it may answer."""

    def score(self, text: str) -> int | None:
        """The score in an answer; None when there is not exactly one."""
        return _digit(text) if self.scale == "1-5" else _yes_or_no(text)


@dataclass
class JudgeCounts:
    """How a judgement went."""

    scores: Counter[int] = field(default_factory=Counter)
    """Records per score."""
    bad: int = 0
    """Answers without exactly one score in them."""
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
    """Judge the records of `source`, which is called `name`, and write a line per record to
    `out`, in order.

    The file appears when it is whole. A bad answer is kept as it is, without a score; so is a
    failure. `report` is called once per record.
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
    # A record that cannot be read has no id; an empty one keeps all lines alike for those who
    # look records up by id.
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
    """The only number from 1 to 5 in a text; `4/5` and `4 out of 5` are 4, and a text with
    other numbers has none.
    """
    plain = re.sub(r"(?<=\d)\s*(?:/|out of)\s*5\b", "", text)
    numbers = set(re.findall(r"\d+(?:\.\d+)?", plain))
    return int(numbers.pop()) if len(numbers) == 1 and numbers <= set("12345") else None


def _yes_or_no(text: str) -> int | None:
    words = {word for word in re.findall(r"[a-z]+", text.lower()) if word in ("yes", "no")}
    return {"yes": 1, "no": 0}[words.pop()] if len(words) == 1 else None
