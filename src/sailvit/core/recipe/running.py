"""Settings of how a run goes on: checkpoints, recovery, and how processes share the model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sailvit.core.config import Config
from sailvit.core.recipe.types import Count, Part, Positive


class CheckpointConfig(Config):
    """When the training state is saved, and which states are kept.

    Besides, it is always saved at stage ends and before every stop that leaves time for it.
    """

    minutes: Positive | None = 20.0
    """Minutes between saves, by the first process's clock; null saves by steps alone."""
    first_minutes: Positive = 5.0
    """Minutes from the first step of a start or a resume to its first save, where that is
    sooner than `minutes`."""
    every: Count | None = None
    """Steps between saves, beside those by time; null saves by time alone."""
    keep: Count = 2
    """Newest states that are kept; one more is there while the next is written."""
    best: bool = False
    """Whether the state with the lowest mean loss since the save before it is kept as well."""


class RecoveryConfig(Config):
    """What happens when losses or gradients are not finite, or jump."""

    streak: Count = 5
    """Skipped steps in a row after which the run goes back to its last checkpoint."""
    rollbacks: Annotated[int, Field(ge=0)] = 2
    """Rollbacks per stage at most; the next failure stops the run and names the samples."""
    spike: Positive = 8.0
    """Robust z-score over the last 100 losses from which a loss is noted as a spike, with its
    samples."""


Packing = Literal["auto", "packed", "rows"]
"""How the samples of a pack are kept apart in the language."""


class ParallelConfig(Config):
    """How the processes of a run share the model's state; they always share the data."""

    mode: Literal["replicate", "shard", "hybrid"] = "replicate"
    """`replicate`: each holds the whole model; `shard`: weights, gradients and moments are
    split over all (FSDP2); `hybrid`: split within groups of `group` processes, replicated
    between them (HSDP)."""
    group: Count | None = None
    """Processes per group of `hybrid`; None: those of one machine."""
    recompute: dict[Part, Literal["selective", "full"]] = {}
    """Activation checkpointing per part: `full` keeps each block's input alone, `selective` its
    matrix products too."""
    compile: bool = False
    """Whether every transformer block is compiled."""
    kernels: Literal["auto", "plain"] = "auto"
    """`auto` uses liger-kernel's fused kernels for the language on a GPU where the package is
    installed, unless blocks are compiled, which fuses too; `plain` never uses them."""
    kept_features: Annotated[float, Field(ge=0)] = 2.0
    """GiB per process for a frozen tower's features, kept within an accumulated step whose
    objectives ask for them twice; those without room are computed twice, to the same bits."""
    reduce: Literal["each", "last"] = "each"
    """When gradients of shards are added up over processes: after `each` micro-batch, which
    holds no more than shards of them, or after a step's `last`, which sends less and holds them
    whole. With `replicate` they are always sent once, during the last."""
    packing: Packing = "auto"
    """How the language reads the samples of a pack. `packed`: side by side in one row, refused
    where the proof finds that samples see each other; `rows`: as padded rows of similar length,
    which works for every causal language; `auto`: the first of both that the proof accepts.
    Which samples share a pack, and their order, do not depend on it."""
    offload: bool = False
    """Whether shards and their optimizer state live in CPU memory (with `shard` or
    `hybrid`)."""

    @model_validator(mode="after")
    def _does_something(self) -> ParallelConfig:
        if self.group is not None and self.mode != "hybrid":
            raise ValueError(
                f"`group` belongs to mode hybrid; the mode is {self.mode}: leave it out, or change `mode`"
            )
        if self.reduce == "last" and self.mode == "replicate":
            raise ValueError(
                "`reduce` is about shards; mode replicate adds gradients up after the last micro-batch"
                " anyway: leave it out, or set mode to shard or hybrid"
            )
        if self.offload and self.mode == "replicate":
            raise ValueError(
                "`offload` moves shards, and mode replicate has none; set mode to shard or hybrid"
            )
        return self
