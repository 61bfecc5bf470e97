"""Which records were dropped and why, with examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from sailvit.core.records import Source
from sailvit.dataprep.records.record_view import DAMAGE, RecordView

_EXAMPLES = 5
"""Records named per reason: the first ones, by position."""


class Drop(NamedTuple):
    """A record that is dropped."""

    position: int
    """Its position in the source."""
    why: str
    """The reason, as it is counted."""
    found: str
    """The value that was found in this record."""


class DropReport:
    """Counts and examples per step; a record counts only for the first step that drops it."""

    def __init__(self, source: Source, steps: Sequence[str]) -> None:
        self._source = source
        self._steps = list(steps)
        self._why: list[Counter[str]] = [Counter() for _ in steps]
        self._examples: list[dict[str, list[Drop]]] = [{} for _ in steps]

    def enter(self, step: int, drop: Drop) -> None:
        """Count a dropped record; within a step, call this in order of position."""
        self._why[step][drop.why] += 1
        noted = self._examples[step].setdefault(drop.why, [])
        if len(noted) < _EXAMPLES:
            noted.append(drop)

    def accounts(self) -> list[dict[str, Any]]:
        """Per step: how many records reached it, were kept and were dropped, with reasons and
        examples, as JSON values.
        """
        left, accounts = len(self._source), []
        for name, why, examples in zip(self._steps, self._why, self._examples, strict=True):
            dropped = why.total()
            accounts.append(
                {
                    "filter": name,
                    "seen": left,
                    "kept": left - dropped,
                    "dropped": dropped,
                    "why": dict(why.most_common()),
                    "examples": [
                        self._example(drop) for noted in examples.values() for drop in noted
                    ],
                }
            )
            left -= dropped
        return accounts

    def _example(self, drop: Drop) -> dict[str, Any]:
        try:
            view = RecordView(drop.position, self._source[drop.position])
        except DAMAGE:
            return drop._asdict()
        return {**drop._asdict(), "id": view.record.id, "text": view.answers[:200]}
