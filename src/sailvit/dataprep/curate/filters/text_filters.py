"""Filters by text: length, repetition, language, text read from the image, and scores in a
file.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sailvit.core.errors import DataError
from sailvit.core.recipe import Count, Share
from sailvit.dataprep.curate.filters.base import Objection, RecordFilter, outside
from sailvit.dataprep.curate.filters.languages import SCRIPT, language, recognizer
from sailvit.dataprep.curate.filters.scores import ScoreTable
from sailvit.dataprep.records.record_view import RecordView
from sailvit.dataprep.records.words import words

Unit = Literal["characters", "words"]
"""Unit in which texts are measured; an ideograph counts as a word."""

# 500 characters at most: a mark without its partner must not take the rest of the text.
_QUOTED = re.compile(
    r'"([^"\n]{1,500})"|“([^”\n]{1,500})”|„([^“”\n]{1,500})[“”]|«([^»\n]{1,500})»|「([^」\n]{1,500})」|《([^》\n]{1,500})》'
)


class LengthFilter(RecordFilter):
    """Keeps records whose answers, taken together, are neither too short nor too long."""

    at_least: Count | None = None
    """Least length; None: no bound."""
    at_most: Count | None = None
    """Greatest length; None: no bound."""
    unit: Unit = "characters"
    """Unit of both."""

    def objection(self, view: RecordView) -> Objection | None:
        """Answers that are too short or too long."""
        length = len(view.answers if self.unit == "characters" else words(view.answers))
        return outside(
            self.unit,
            length,
            at_least=self.at_least,
            at_most=self.at_most,
            found=f"{length} {self.unit}",
        )


class Repetition(RecordFilter):
    """Keeps records whose answers do not repeat themselves."""

    at_most: Share
    """Greatest share of n-grams that occurred earlier in the same answers."""
    n: Count = 3
    """Length of an n-gram; take about 10 for characters."""
    unit: Unit = "words"
    """Unit that n-grams consist of."""

    def objection(self, view: RecordView) -> Objection | None:
        """Answers that repeat too much."""
        text = view.answers if self.unit == "characters" else words(view.answers)
        count = len(text) - self.n + 1
        if count < 1:
            return None
        different = {tuple(text[start : start + self.n]) for start in range(count)}
        return outside(
            f"repeated {self.unit}", 1 - len(different) / count, at_least=None, at_most=self.at_most
        )


class Language(RecordFilter):
    """Keeps records whose answers are in one of the given languages."""

    keep: Annotated[list[str], Field(min_length=1)]
    """ISO 639-1 codes (`en`), or scripts where no recognizer is installed (`script:latin`)."""
    short: Literal["keep", "drop"] = "keep"
    """What to do with texts of fewer than 12 letters, whose language cannot be told."""

    def check(self) -> None:
        """Refuse languages where no recognizer is installed."""
        named = [code for code in self.keep if not code.startswith(SCRIPT)]
        if named and recognizer() == "script":
            raise DataError(
                f"the language filter keeps {', '.join(named)}, and no recognizer is installed:"
                " pip install 'sailvit[curate]', or keep scripts, such as script:latin"
            )

    def objection(self, view: RecordView) -> Objection | None:
        """Answers in another language."""
        found = language(view.answers)
        if found in self.keep or (found == "short" and self.short == "keep"):
            return None
        return Objection(f"language {found}", found)


class ReadText(RecordFilter):
    """Keeps records by how much of their answers is text that stands in the image.

    Captions quote such text, so the share is that of characters in quotation marks; in records
    of kind `ocr` it is 1. No field of a record marks such text.
    """

    at_least: Share | None = None
    """Least share; None: no bound."""
    at_most: Share | None = None
    """Greatest share; None: no bound."""

    def objection(self, view: RecordView) -> Objection | None:
        """Too much or too little text from the image."""
        quoted = sum(len("".join(filter(None, groups))) for groups in _QUOTED.findall(view.answers))
        share = 1.0 if view.record.kind == "ocr" else quoted / max(len(view.answers), 1)
        return outside("share of read text", share, at_least=self.at_least, at_most=self.at_most)


class ScoresFilter(RecordFilter):
    """Keeps records whose score in a file is within bounds."""

    FILES = ("file",)

    file: str
    """JSONL of `{score}` with `id` or `position`, as `sailvit data judge` writes it; a record's
    last line counts."""
    at_least: float | None = None
    """Least score (yes is 1 and no is 0); None: no bound."""
    at_most: float | None = None
    """Greatest score; None: no bound."""
    source: str | None = None
    """Read only lines whose `source` has this name; None: all lines."""
    missing: Literal["keep", "drop"] = "drop"
    """What to do with records that have no score."""

    def check(self) -> None:
        """Read the scores, 16 bytes of memory per line."""
        # Read here, before the step is sent to worker processes: they get the table with it.
        _ = self._table

    def objection(self, view: RecordView) -> Objection | None:
        """A score outside the bounds, or a missing one."""
        score = self._table.of(view)
        if score is None:
            return Objection("no score", "no score") if self.missing == "drop" else None
        return outside("score", score, at_least=self.at_least, at_most=self.at_most)

    @cached_property
    def _table(self) -> ScoreTable:
        return ScoreTable(Path(self.file), self.source)
