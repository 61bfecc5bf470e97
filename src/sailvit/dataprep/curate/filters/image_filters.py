"""Filters by images: their size and shape, copies, and how well they match the text."""

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
    """Keeps records whose images are all within these sizes; None: no bound."""

    side_at_least: Count | None = None
    """Least length of the shorter side, in pixels."""
    side_at_most: Count | None = None
    """Greatest length of the longer side, in pixels."""
    pixels_at_least: Count | None = None
    """Least width x height, in pixels."""
    pixels_at_most: Count | None = None
    """Greatest width x height, in pixels."""

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
    """Keeps records without very long images."""

    at_most: Annotated[float, Field(ge=1)]
    """Greatest ratio of the longer to the shorter side."""

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
    """What has to be equal: images and text, the images alone (then several questions about one
    image are copies), or the text alone."""

    def hashes(self, view: RecordView) -> Sequence[Hash]:
        """The hash of the record or of its text, or one hash per image."""
        if self.of == "image":
            return view.image_hashes
        return (view.text_hash,) if self.of == "text" else (view.record_hash,)


class NearDuplicate(CopyFilter):
    """Drops records whose images look like those of earlier ones: scaled, compressed again,
    brightened.

    Only 9 x 8 cells of grey are compared, in which pages of text look alike: use `kinds` to
    leave out documents.
    """

    why = "looks like an earlier record"

    distance: Annotated[int, Field(ge=0, le=16)] = 6
    """Most different bits, of 128."""
    text: bool = False
    """Whether the text has to be equal too; false: several questions about one image are
    copies."""

    def hashes(self, view: RecordView) -> Sequence[Hash]:
        """One hash per image."""
        if not self.text:
            return view.picture_hashes
        # Different texts flip about 64 of the 128 bits, more than any distance that is allowed;
        # equal texts flip the same bits on both sides.
        high, low = view.text_hash
        return [(one ^ high, other ^ low) for one, other in view.picture_hashes]

    def reach(self) -> int:
        """Most bits in which the hashes of near copies differ."""
        return self.distance


class Similarity(ScoredFilter):
    """Keeps records whose text fits their images."""

    at_least: float
    """Least cosine similarity of image and text; 0.2 is usual for CLIP, whose scores lie
    between 0.1 and 0.4."""

    def judge(self, view: RecordView, scores: Sequence[float]) -> Objection | None:
        """The image that fits worst."""
        del view
        return (
            outside("similarity", min(scores), at_least=self.at_least, at_most=None)
            if scores
            else None
        )
