"""Resampling: records whose text repeats what many others say are kept with a lower
probability.
"""

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

    If a share s of all records has an n-gram, and the wanted share is t < s, then such records
    are kept with probability odds(t) / odds(s), to the power of `strength`. Of several such
    n-grams in a record, the one with the lowest probability decides.
    """

    n: Annotated[int, Field(ge=1, le=16)] = 4
    """Words of an n-gram."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Wanted share: at most this share of the records should have the same n-gram."""
    strength: Positive = 1.0
    """1 brings shares down to `share`, less than 1 only part of the way."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Lowest probability; at 0, nearly all records with a very frequent phrase are lost."""
    template: Share = 0.9
    """N-grams of a share from here on are ignored: where nearly all records have one, dropping
    some makes it no rarer."""
    width: Count = 1 << 20
    """Columns of the sketch that counts, a power of two; 16 bytes each. More columns make its
    counts more exact."""

    def probability(self, shares: NDArray[np.float64]) -> float:
        """Probability of keeping a record, given the shares float64[n] of its n-grams."""
        highest = float(shares[shares < self.template].max(initial=0.0))
        if highest <= self.share:
            return 1.0
        # Kept with probability p, s p records with the n-gram remain beside 1 - s others, and
        # s p / (s p + 1 - s) = t gives p = odds(t) / odds(s).
        ratio = (self.share / (1 - self.share)) / (highest / (1 - highest))
        return float(max(self.floor, ratio**self.strength))


def chance(seed: int, name: str) -> float:
    """A number from 0 to 1; a record is kept if it is below the record's probability."""
    # By the record's id alone: the same records stay after filters change or data are added.
    high, low = content_hash(text_bytes(name))
    return derive_seed(seed, "resampling", high, low) / 2.0**63
