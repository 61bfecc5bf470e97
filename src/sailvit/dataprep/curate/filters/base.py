"""What a filter is: three kinds, by what they need beside the record."""

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
"""From images uint8[H, W, 3] and as many texts: how well each pair matches, higher for better."""


class Objection(NamedTuple):
    """Why a record is dropped."""

    why: str
    """The reason, as it is counted: the same words for all records with this reason."""
    found: str
    """The value that was found in this record."""


class Filter(Config):
    """Settings of a filter, and the filter itself."""

    FILES: ClassVar[tuple[str, ...]] = ()
    """Fields that name a file or folder; a relative path starts at the folder of the settings'
    file."""

    kinds: list[str] | None = None
    """Kinds of records that it judges; others pass. None: all kinds."""

    def check(self) -> None:
        """Fail now if judging would fail for every record: read files, find libraries."""

    def applies_to(self, view: RecordView) -> bool:
        """Whether it judges this record."""
        return self.kinds is None or view.record.kind in self.kinds


class RecordFilter(Filter, ABC):
    """A filter that needs nothing but the record."""

    @abstractmethod
    def objection(self, view: RecordView) -> Objection | None:
        """Why the record is dropped; None: it is kept."""


class ScoredFilter(Filter, ABC):
    """A filter by how well image and text match, as a dual encoder scores them."""

    FILES = ("model",)

    model: str
    """Folder or hub id of a model with a vision and a text tower, such as CLIP or SigLIP."""
    batch: Count = 32
    """Images per forward pass."""

    @abstractmethod
    def judge(self, view: RecordView, scores: Sequence[float]) -> Objection | None:
        """Why the record is dropped, given the score of each of its images with its text; None:
        it is kept.
        """


class CopyFilter(Filter, ABC):
    """A filter that drops records all of whose hashes an earlier record has."""

    why: ClassVar[str]
    """The reason, as it is counted."""

    @abstractmethod
    def hashes(self, view: RecordView) -> Sequence[Hash]:
        """The hashes that are compared; a record without any is no copy."""

    def reach(self) -> int:
        """Most bits in which hashes of copies may differ."""
        return 0


def outside(
    why: str,
    value: float,
    *,
    at_least: float | None,
    at_most: float | None,
    found: str | None = None,
) -> Objection | None:
    """The objection to a value outside its bounds; a bound of None is no bound, and NaN is within
    none.
    """
    found = found or f"{value:.3g}"
    # Not `value < at_least`, which is false for NaN.
    if at_least is not None and not value >= at_least:
        return Objection(f"{why} below {at_least:g}", found)
    if at_most is not None and not value <= at_most:
        return Objection(f"{why} above {at_most:g}", found)
    return None
