"""What planning costs and gives: time per sample, fill, blend, balance across ranks, cursor, and memory at 10M records.

python benchmarks/plan.py
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from publish import publish

from sailvit.data.lengths.costs import CostTable
from sailvit.data.sampling.balance import Pack, deal
from sailvit.data.sampling.loader_config import LoaderConfig
from sailvit.data.sampling.planner import PackPlan

SHARES = {"pictures": 0.7, "texts": 0.3}
TOKENS_PER_TILE = 256
RANKS = 8
PACKS = 1024
RECORDS = 10_000_000
DRAWS = 200_000


def costs(records: int, most_tiles: int, seed: int) -> CostTable:
    """Lognormal texts (median 150 tokens) beside 1 to `most_tiles` tiles, or alone."""
    generator = np.random.default_rng(seed)
    tiles = generator.integers(1, most_tiles + 1, records) if most_tiles else np.zeros(records)
    text = np.clip(generator.lognormal(np.log(150), 1, records), 10, None)
    return CostTable((tiles * TOKENS_PER_TILE + text).astype(np.int32), tiles.astype(np.int32))


def loader_config(sequence: int, **settings: Any) -> LoaderConfig:
    """The skewed mixture: three in ten samples are text."""
    return LoaderConfig(
        **{
            "name": "plan",
            "seed": 0,
            "shares": SHARES,
            "sequence": sequence,
            "global_batch": 64,
            **settings,
        }
    )


def imbalance(
    packs: Sequence[Pack], per_rank: int, dealt: Callable[[Sequence[Pack]], list[Sequence[Pack]]]
) -> float:
    """Tiles of the heaviest rank over the mean of all, on average over the steps."""
    ratios = []
    for at in range(0, len(packs) - RANKS * per_rank + 1, RANKS * per_rank):
        loads = [
            sum(d.tiles for pack in rank for d in pack)
            for rank in dealt(packs[at : at + RANKS * per_rank])
        ]
        ratios.append(max(loads) / mean(loads))
    return round(mean(ratios), 4)


def quality(sequence: int) -> dict[str, Any]:
    """Time, fill, blend and balance of the skewed mixture at this length of a pack."""
    sources = {"pictures": costs(100_000, 12, 1), "texts": costs(100_000, 0, 2)}
    settings = loader_config(sequence)
    rounds = []
    for _ in range(7):
        begin = time.process_time()
        steps = list(islice(PackPlan(settings, sources).steps(), PACKS // settings.global_batch))
        for step in steps:
            deal(step.packs, RANKS)
        rounds.append((time.process_time() - begin) / steps[-1].cursor["samples"])
    packs = [pack for step in steps for pack in step.packs]
    counts = Counter(draw.source for pack in packs for draw in pack)
    return {
        "samples_per_pack": round(counts.total() / len(packs), 2),
        "us_per_sample": round(1e6 * min(rounds), 2),
        "fill": round(steps[-1].cursor["tokens"] / len(packs) / sequence, 4),
        "blend_error": round(
            max(abs(counts[name] / counts.total() - share) for name, share in SHARES.items()), 5
        ),
        "heaviest_rank_over_mean": {
            per_rank: {
                "dealt": imbalance(packs, per_rank, lambda packs: deal(packs, RANKS)),
                "round_robin": imbalance(
                    packs, per_rank, lambda packs: [packs[rank::RANKS] for rank in range(RANKS)]
                ),
            }
            for per_rank in (1, 2, 4, 8, 16)
        },
        "cursor_bytes": max(len(json.dumps(step.cursor)) for step in steps),
    }


def megabytes(field: str) -> float:
    """Memory of this process in MB: `VmRSS`, or `RssAnon` without what is mapped from files."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def memory(folder: Path) -> dict[str, Any]:
    """Growth over many draws from an index of 10M records in 1000 shards that is mapped from files."""
    for part in range(10):
        table = costs(RECORDS // 10, 12, part)
        for name, values in (("tokens", table.tokens), ("tiles", table.tiles)):
            with (folder / name).open("ab") as file:
                values.tofile(file)
    tokens, tiles = (np.memmap(folder / name, np.int32, "r") for name in ("tokens", "tiles"))
    sources = {"pictures": CostTable(tokens, tiles, [RECORDS // 1000] * 1000)}
    grown: dict[str, Any] = {"records": RECORDS, "draws": DRAWS}
    for name, window in {"whole": None, "window_of_16_shards": 16}.items():
        before, begin = (megabytes("VmRSS"), megabytes("RssAnon")), time.process_time()
        for step in PackPlan(
            loader_config(8192, shares={"pictures": 1.0}, window=window), sources
        ).steps():
            if step.cursor["samples"] >= DRAWS:
                break
        grown[name] = {
            "us_per_sample": round(1e6 * (time.process_time() - begin) / DRAWS, 2),
            "grown_mb": round(megabytes("VmRSS") - before[0], 1),
            "grown_mb_without_mapped_files": round(megabytes("RssAnon") - before[1], 1),
        }
    return grown


def main() -> None:
    """Measure and publish."""
    result: dict[str, Any] = {"packs": PACKS, "ranks": RANKS}
    for sequence in (4096, 8192):
        result[f"sequence_{sequence}"] = quality(sequence)
        print(sequence, result[f"sequence_{sequence}"])
    with tempfile.TemporaryDirectory() as folder:
        result["large_index"] = memory(Path(folder))
    publish("plan", "python benchmarks/plan.py", result)


if __name__ == "__main__":
    main()
