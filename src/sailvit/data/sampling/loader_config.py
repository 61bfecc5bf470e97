"""Loader config: everything that determines a stage's packs and their order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sailvit.core.recipe import QuarantineConfig


@dataclass(frozen=True)
class LoaderConfig:
    """What a stage's loader reads, in which order, and how."""

    name: str
    """The stage's name; with the seed it determines the order."""
    seed: int
    """The recipe's seed."""
    shares: Mapping[str, float]
    """Sources with their shares of the samples, in any unit."""
    sequence: int
    """Length of a pack, in tokens."""
    global_batch: int
    """Packs per step, over all ranks."""
    micro_batch: int = 1
    """Packs per batch."""
    samples: int | None = None
    """Draws after which the data end; None: they never end."""
    caps: Mapping[str, int] = field(default_factory=dict)
    """Most draws of a source; after them the other sources keep their proportion."""
    tiles: int | None = None
    """Most tiles in one pack; None: only `sequence` limits them."""
    window: int | None = None
    """Shards that are shuffled together; None: each source is shuffled as a whole."""
    quarantine: QuarantineConfig = field(default_factory=QuarantineConfig)
    """How many unreadable records are allowed."""
    workers: int = 0
    """Loader processes; 0: this process reads."""
    rank: int = 0
    """The rank whose share of every step is loaded."""
    world: int = 1
    """Number of ranks."""
