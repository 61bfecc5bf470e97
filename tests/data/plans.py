"""Random loader configs and their costs, for the tests of the plan."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from sailvit.data.lengths.costs import CostTable
from sailvit.data.sampling.loader_config import LoaderConfig


def table(
    records: int, *, tiles: tuple[int, int] = (0, 0), text: float = 150, seed: int = 0, shards=()
) -> CostTable:
    """Costs with lognormal texts of this median and as many tiles, of 256 tokens, as `tiles` allows."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(tiles[0], tiles[1] + 1, records)
    tokens = 256 * drawn + np.clip(generator.lognormal(np.log(text), 1, records), 10, None)
    return CostTable(tokens.astype(np.int32), drawn.astype(np.int32), shards)


def skewed(records: int = 5000) -> dict[str, CostTable]:
    """Three in ten records are text; the others have one to twelve tiles."""
    return {"pictures": table(records, tiles=(1, 12), seed=1), "texts": table(records, seed=2)}


def loader_config(shares: dict[str, float], **settings) -> LoaderConfig:
    """A loader config that is named and seeded."""
    return LoaderConfig(
        **{
            "name": "mixed",
            "seed": 5,
            "shares": shares,
            "sequence": 4096,
            "global_batch": 8,
            **settings,
        }
    )


def skewed_config(sequence: int, global_batch: int = 64) -> LoaderConfig:
    """The loader config of the skewed mixture."""
    return loader_config(
        {"pictures": 0.7, "texts": 0.3}, sequence=sequence, global_batch=global_batch
    )


@st.composite
def random_costs(draw) -> CostTable:
    """Costs of 1 to 200 records in shards; some cost nothing, some more than a pack holds."""
    shards = draw(
        st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(
            lambda sizes: 1 <= sum(sizes) <= 200
        )
    )
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    tiles = generator.integers(0, draw(st.integers(1, 8)), sum(shards))
    tokens = 16 * tiles + generator.integers(0, draw(st.sampled_from([2, 40, 600])), sum(shards))
    return CostTable(tokens.astype(np.int32), tiles.astype(np.int32), shards)


@st.composite
def random_plans(draw) -> tuple[LoaderConfig, dict[str, CostTable]]:
    """A loader config of one to four sources, and their costs."""
    costs = {name: draw(random_costs()) for name in "abcd"[: draw(st.integers(1, 4))]}
    return loader_config(
        {name: draw(st.floats(0.05, 5)) for name in costs},
        sequence=draw(st.sampled_from([60, 200, 256])),
        global_batch=draw(st.integers(1, 9)),
        samples=draw(st.sampled_from([None, 1, 300, 900])),
        caps={name: draw(st.integers(1, 400)) for name in costs if draw(st.booleans())},
        tiles=draw(st.sampled_from([None, 5, 9])),
        window=draw(st.sampled_from([None, 1, 2, 9])),
    ), costs
