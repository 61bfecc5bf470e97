"""What a filter is. One that looks at records alone gives an objection or none; others are
given what they need.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sailvit.core.config import Config
from sailvit.core.recipe import Count
from sailvit.dataprep.records.hashes import Hash
from sailvit.dataprep.records.record_view import RecordView

Scorer = Callable[[Sequence[NDArray[np.uint8]], Sequence[str]], Sequence[float]]
"""How well each image uint8[H, W, 3] and the text of the same place agree; higher is better."""


class Objection(NamedTuple):
    """Why a record is dropped."""

    why: str
    """The reason, as it is counted: the same words for all records that it holds for."""
    found: str
    """What this record has."""


class Filter(Config):
    """Settings of a filter, and the filter itself."""

    FILES: ClassVar[tuple[str, ...]] = ()
    """Fields that name a file or folder; relative ones start at the folder of the file of
    settings."""

    kinds: list[str] | None = None
    """Kinds of records that it looks at; it lets all others pass. None: all kinds."""

    def check(self) -> None:
        """Do what can fail for all records, so that it fails before the first: read files, find
        libraries.
        """

    def applies_to(self, view: RecordView) -> bool:
        """Whether it has a say about this record."""
        return self.kinds is None or view.record.kind in self.kinds


class RecordFilter(Filter, ABC):
    """A filter that needs nothing but the record."""

    @abstractmethod
    def objection(self, view: RecordView) -> Objection | None:
        """Why the record is dropped; None: it is kept."""


class ScoredFilter(Filter, ABC):
    """A filter by how well image and text agree, as a model of two towers sees it."""

    FILES = ("model",)

    model: str
    """Folder or hub id of a model with a vision and a text tower, such as CLIP or SigLIP."""
    batch: Count = 32
    """Images per forward pass."""

    @abstractmethod
    def judge(self, view: RecordView, scores: Sequence[float]) -> Objection | None:
        """Why the record is dropped, given the score of every image with the record's text;
        None: it is kept.
        """


class CopyFilter(Filter, ABC):
    """A filter that drops records all of whose hashes an earlier record has."""

    why: ClassVar[str]
    """The reason, as it is counted."""

    @abstractmethod
    def hashes(self, view: RecordView) -> Sequence[Hash]:
        """What is compared; nothing, and the record is no copy."""

    def reach(self) -> int:
        """Bits in which hashes of copies may differ."""
        return 0


def outside(
    why: str,
    value: float,
    *,
    at_least: float | None,
    at_most: float | None,
    found: str | None = None,
) -> Objection | None:
    """The objection to a value outside its bounds, either of which may be None."""
    found = found or f"{value:.3g}"
    if at_least is not None and value < at_least:
        return Objection(f"{why} below {at_least:g}", found)
    if at_most is not None and value > at_most:
        return Objection(f"{why} above {at_most:g}", found)
    return None
