"""Resampling: records whose text repeats what many others say are kept less often."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sailvit.core.config import Config
from sailvit.core.recipe import Count, Positive, Share
from sailvit.core.seeding import derive_seed
from sailvit.dataprep.records.hashes import content_hash
from sailvit.dataprep.records.words import text_bytes


class Resampling(Config):
    """How far over-represented n-grams are thinned out.

    An n-gram that a share of s of all records has, and shall have a share of t < s, lets its
    records be kept with a probability of odds(t) / odds(s), to the power of `strength`; that
    gives the share t when nothing else is dropped. Of several such n-grams in a record the one
    that allows least decides.
    """

    n: Annotated[int, Field(ge=1, le=16)] = 4
    """Words of an n-gram."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the records that may have the same n-gram."""
    strength: Positive = 1.0
    """1 brings shares down to `share`, less than 1 only part of the way."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Least probability; without it, phrases of many records would take nearly all of them."""
    template: Share = 0.9
    """Share from which on an n-gram is left alone: when all records have it, dropping some
    makes it no rarer."""
    width: Count = 1 << 20
    """Columns of the sketch that counts, a power of two; 16 bytes each. Counts are too high by
    e / width at most."""

    def probability(self, shares: NDArray[np.float64]) -> float:
        """With which a record is kept whose n-grams have these shares float64[n] of all records."""
        highest = float(shares[shares < self.template].max(initial=0.0))
        if highest <= self.share:
            return 1.0
        ratio = (self.share / (1 - self.share)) / (highest / (1 - highest))
        return float(max(self.floor, ratio**self.strength))


def chance(seed: int, name: str) -> float:
    """A number in 0..1 from the seed and a record's id alone; the record is kept when it is
    below its probability.
    """
    high, low = content_hash(text_bytes(name))
    return derive_seed(seed, "resampling", high, low) / 2.0**63
