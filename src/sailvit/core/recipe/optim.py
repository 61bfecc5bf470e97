"""Settings of what trains, and of the optimizer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sailvit.core.config import Config
from sailvit.core.recipe.types import Count, NotNegative, Positive, Share


class TrainConfig(Config):
    """How one part trains in a stage."""

    lr: NotNegative = 1.0
    """Share of the stage's learning rate; 0 freezes the part."""
    last_blocks: Count | None = None
    """Train only the last k transformer blocks that the features pass through, and what follows
    them; None: all blocks train."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Factor on the learning rate per layer, from the top down. What follows the blocks trains
    at the part's full rate, the k-th block from the end at the k-th power of the factor times
    that, the embeddings at one power more than the first block. None: all layers have the same
    rate."""


class OptimConfig(Config):
    """AdamW and gradient clipping."""

    lr: Positive
    """Peak learning rate."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """Decay of the first and second moment."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    weight_decay: NotNegative = 0.05
    """Decoupled decay of matrices; vectors (biases, norms) are never decayed."""
    state: Literal["fp32", "8bit"] = "fp32"
    """Precision of the two moments. `8bit`: one byte per value in large matrices, with a scale
    per 128 values of a row."""
    clip: Positive | None = 1.0
    """Largest global gradient norm; None: gradients stay as they are."""
