"""A stage in progress: what the loop drives, callbacks see and a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from sailvit.core.batch import Step
from sailvit.core.recipe import Recipe, Stage
from sailvit.core.run import RunFolder
from sailvit.data.loading.loader import Loader
from sailvit.distributed.replicas import Replicas
from sailvit.models.loading.build import ModelBundle
from sailvit.models.measures.flops import FlopsModel
from sailvit.models.structure.mllm import MLLM
from sailvit.training.objectives.objective import Objective
from sailvit.training.optim.schedules import rate
from sailvit.training.stages.journal import Journal


@dataclass
class StageRun:
    """One stage of one run on this process."""

    recipe: Recipe
    """The whole recipe."""
    index: int
    """Which of its stages this is."""
    folder: RunFolder
    """Where the run writes."""
    bundle: ModelBundle
    """Model, tokenizer and layout."""
    objectives: dict[str, Objective]
    """The stage's objectives by name."""
    optimizer: torch.optim.AdamW
    """Holds exactly what trains."""
    loader: Loader
    """Gives the stage's steps, from its cursor on."""
    device: torch.device
    """Where the model lives."""
    target: float
    """Length of the stage in samples or, where it is given in tokens, in tokens; at most what
    its sources have."""
    flops: FlopsModel
    """Counts the FLOPs of a step, frozen parts without the gradients that they are spared."""
    peak: float
    """FLOP/s that the device can reach: what MFU is a share of."""
    cursor: dict[str, Any] = field(default_factory=dict)
    """Where the loader stands after the last finished step."""
    step: int = 0
    """Optimizer steps done in this stage."""
    samples: int = 0
    """Samples consumed in this stage, over all processes."""
    tokens: int = 0
    """Tokens consumed in this stage without padding, over all processes."""
    seconds: float = 0.0
    """Time spent in this stage's steps."""
    rate_factor: float = 1.0
    """What callbacks multiply the schedule's learning rate by."""
    replicas: Replicas | None = None
    """The loss whose gradients are summed over processes; made by the first step with
    replicated weights."""
    skipped: int = 0
    """Steps of this stage that changed nothing, because a loss or gradient was not finite."""
    skipped_in_row: int = 0
    """How many of the latest steps in a row were skipped."""
    updating: bool = False
    """Whether the optimizer is at work: weights and moments then belong to no step, and must
    not be saved."""
    journal: Journal = field(default_factory=Journal)
    """Where lines about the run are written."""
    sample_ids: tuple[str, ...] = ()
    """Samples of the last step on this process."""
    stop: bool = False
    """Set by a callback to end the stage after the step in progress."""

    @property
    def stage(self) -> Stage:
        """The stage's settings."""
        return self.recipe.stages[self.index]

    @property
    def model(self) -> MLLM:
        """The model in training."""
        return self.bundle.mllm

    def share_done(self, samples: int, tokens: int) -> float:
        """Share of the stage, 0..1, that is done after so many samples and tokens."""
        done = tokens if self.stage.length.tokens is not None else samples
        # A length in tokens ends with the first step that reaches it, mostly past it.
        return min(done / self.target, 1.0)

    def rate(self, done: float) -> float:
        """Learning rate of a part with share 1, when the share `done` of the stage is done."""
        return self.stage.optim.lr * rate(self.stage.schedule, done) * self.rate_factor

    def took(self, step: Step, samples: int, tokens: int, *, skipped: bool) -> None:
        """Advance past `step`, after which the stage has this many samples and tokens."""
        self.step, self.samples, self.tokens, self.cursor = (
            self.step + 1,
            samples,
            tokens,
            step.cursor,
        )
        self.sample_ids = tuple(name for batch in step.batches for name in batch.sample_ids)
        self.skipped += skipped
        self.skipped_in_row = self.skipped_in_row + 1 if skipped else 0

    @property
    def finished(self) -> bool:
        """Whether a length in tokens has been reached; other lengths end with the loader."""
        asked = self.stage.length.tokens
        return asked is not None and self.tokens >= asked


@dataclass(frozen=True)
class StepRecord:
    """What one optimizer step did; a line of metrics.jsonl."""

    stage: str
    """Name of the stage."""
    stage_index: int
    """Its index in the recipe."""
    step: int
    """Optimizer steps done in the stage, this one included."""
    samples: int
    """Samples consumed in the stage."""
    tokens: int
    """Tokens consumed in the stage, without padding."""
    done: float
    """Share of the stage that is done, 0..1."""
    answer_tokens: int
    """Tokens with loss in this step."""
    images: int
    """Pictures that the tower saw in this step: images in native resolution, otherwise tiles."""
    padding: float
    """Share of padding in this step's packs, 0..1."""
    lr: dict[str, float]
    """Learning rate in force, by part; the highest where its layers differ."""
    loss: dict[str, float]
    """Mean of each objective per unit."""
    grad_norm: float
    """Global gradient norm before clipping."""
    skipped: bool
    """Whether the step changed nothing, because a loss or a gradient was not finite."""
    seconds: float
    """Duration of the step, in seconds."""
    wait: float
    """Seconds of it spent waiting for data."""
    samples_per_s: float
    """Samples per second, over all processes."""
    answer_tokens_per_s: float
    """Tokens with loss per second, over all processes."""
    mfu: float
    """Share of the peak arithmetic rate that went into the model, over all processes."""
