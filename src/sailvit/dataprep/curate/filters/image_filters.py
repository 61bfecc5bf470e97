"""Filters by images: their size and shape, copies, and how well they agree with the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from sailvit.core.recipe import Count
from sailvit.dataprep.curate.filters.base import (
    CopyFilter,
    Objection,
    RecordFilter,
    ScoredFilter,
    outside,
)
from sailvit.dataprep.records.hashes import Hash
from sailvit.dataprep.records.record_view import RecordView


class Resolution(RecordFilter):
    """Keeps records whose every image has the right size."""

    side_at_least: Count | None = None
    """Pixels of the shorter side."""
    side_at_most: Count | None = None
    """Pixels of the longer side."""
    pixels_at_least: Count | None = None
    """Width x height."""
    pixels_at_most: Count | None = None
    """Width x height."""

    def objection(self, view: RecordView) -> Objection | None:
        """The first image that is too small or too large."""
        low, high = self.pixels_at_least, self.pixels_at_most
        for size in view.sizes:
            found = (
                outside(
                    "shorter side",
                    min(size),
                    at_least=self.side_at_least,
                    at_most=None,
                    found=str(size),
                )
                or outside(
                    "longer side",
                    max(size),
                    at_least=None,
                    at_most=self.side_at_most,
                    found=str(size),
                )
                or outside(
                    "pixels", size.width * size.height, at_least=low, at_most=high, found=str(size)
                )
            )
            if found:
                return found
        return None


class Aspect(RecordFilter):
    """Keeps records none of whose images is a strip."""

    at_most: Annotated[float, Field(ge=1)]
    """Longer side divided by the shorter one."""

    def objection(self, view: RecordView) -> Objection | None:
        """The first image that is too long."""
        ratios = [(max(size) / max(min(size), 1), size) for size in view.sizes]
        found = [
            outside("aspect", ratio, at_least=None, at_most=self.at_most, found=str(size))
            for ratio, size in ratios
        ]
        return next(filter(None, found), None)


class Duplicate(CopyFilter):
    """Drops exact copies; the first by position stays."""

    why = "copy of an earlier record"

    of: Literal["record", "image", "text"] = "record"
    """What has to be equal: images and text, all images (then questions about one image are
    copies), or the text."""

    def hashes(self, view: RecordView) -> Sequence[Hash]:
        """One of the record or its text, or one per image."""
        if self.of == "image":
            return view.image_hashes
        return (view.text_hash,) if self.of == "text" else (view.record_hash,)


class NearDuplicate(CopyFilter):
    """Drops records whose images look like those of earlier ones: scaled, compressed again,
    brightened.

    Documents look alike at the 9 x 8 cells that are compared: restrict it with `kinds`, or
    leave those out.
    """

    why = "looks like an earlier record"

    distance: Annotated[int, Field(ge=0, le=16)] = 6
    """Most different bits, of 128."""
    text: bool = False
    """Whether the text has to be equal too; otherwise several questions about one image are
    copies."""

    def hashes(self, view: RecordView) -> Sequence[Hash]:
        """One per image."""
        if not self.text:
            return view.picture_hashes
        # Texts that differ move the hash by some 64 bits, equal ones leave distances as they
        # are.
        high, low = view.text_hash
        return [(one ^ high, other ^ low) for one, other in view.picture_hashes]

    def reach(self) -> int:
        """The distance."""
        return self.distance


class Similarity(ScoredFilter):
    """Keeps records whose text fits their images."""

    at_least: float
    """Least cosine of image and text; 0.2 is usual for CLIP, whose scores lie between 0.1 and
    0.4."""

    def judge(self, view: RecordView, scores: Sequence[float]) -> Objection | None:
        """The image that fits worst."""
        del view
        return (
            outside("similarity", min(scores), at_least=self.at_least, at_most=None)
            if scores
            else None
        )
