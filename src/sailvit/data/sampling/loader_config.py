"""Loader configuration: everything that determines which packs a stage sees, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sailvit.core.recipe import QuarantineConfig


@dataclass(frozen=True)
class LoaderConfig:
    """How a stage is fed."""

    name: str
    """The stage's name; with the seed it determines the order."""
    seed: int
    """Root of the order."""
    shares: Mapping[str, float]
    """Sources with their shares of the samples, in any unit."""
    sequence: int
    """Length of a pack, in tokens."""
    global_batch: int
    """Packs per step, over all ranks."""
    micro_batch: int = 1
    """Packs per batch."""
    samples: int | None = None
    """Draws after which the data end; None: it never ends."""
    caps: Mapping[str, int] = field(default_factory=dict)
    """Most draws of a source; once it has had them, the others go on in their own
    proportion."""
    tiles: int | None = None
    """Most tiles in one pack; None: only the sequence length sets a bound."""
    window: int | None = None
    """Shards that are shuffled together; None: each source is shuffled as a whole."""
    quarantine: QuarantineConfig = field(default_factory=QuarantineConfig)
    """How many unreadable records are put up with."""
    workers: int = 0
    """Loader processes; 0 loads in this one."""
    rank: int = 0
    """Which share of every step is loaded."""
    world: int = 1
    """Number of shares."""
