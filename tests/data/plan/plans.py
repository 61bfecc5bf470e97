"""Random feeds and their costs, for the tests of the plan."""

from __future__ import annotations

import numpy as np

from sailvit.data.feed import Feed
from sailvit.data.index.costs import CostTable


def table(records: int, *, tiles: tuple[int, int] = (0, 0), text: float = 150, seed: int = 0, shards=()) -> CostTable:
    """Costs with lognormal texts of this median and as many tiles, of 256 tokens, as `tiles` allows."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(tiles[0], tiles[1] + 1, records)
    tokens = 256 * drawn + np.clip(generator.lognormal(np.log(text), 1, records), 10, None)
    return CostTable(tokens.astype(np.int32), drawn.astype(np.int32), shards)


def skewed(records: int = 5000) -> dict[str, CostTable]:
    """Three in ten records are text; the others have one to twelve tiles."""
    return {"pictures": table(records, tiles=(1, 12), seed=1), "texts": table(records, seed=2)}


def skewed_feed(sequence: int, global_batch: int = 64) -> Feed:
    """The feed of that mixture."""
    shares = {"pictures": 0.7, "texts": 0.3}
    return Feed(name="mixed", seed=5, shares=shares, sequence=sequence, global_batch=global_batch)
