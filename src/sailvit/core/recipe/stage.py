"""A stage of a run, as one frozen value; no code compares its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sailvit.core.config import Config
from sailvit.core.recipe.data import PortionConfig
from sailvit.core.recipe.optim import OptimConfig, TrainConfig
from sailvit.core.recipe.types import PARTS, Count, Part, Positive
from sailvit.core.schedule import ScheduleConfig

NOT_FOLDERS = ("previous", "recipe")
"""Values of a stage's `start_from` that name no folder."""


class Length(Config):
    """How long a stage lasts: exactly one of the three."""

    samples: Count | None = None
    """Records drawn; the stage ends with exactly this many."""
    tokens: Count | None = None
    """Packed tokens without padding; the stage ends with the first step that reaches it."""
    epochs: Positive | None = None
    """Passes over the stage's sources: epochs x their total records are drawn."""

    @model_validator(mode="after")
    def _one_unit(self) -> Length:
        given = [
            name for name in ("samples", "tokens", "epochs") if getattr(self, name) is not None
        ]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of samples, tokens, epochs; found {' and '.join(given) or 'none'}"
            )
        return self


class Stage(Config):
    """One stage of a run."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    """Names the stage's folder, curves and lines; nothing else depends on it."""
    train: dict[Part, TrainConfig]
    """The parts that train; a bare number is the share of the learning rate. Parts left out are
    frozen."""
    data: dict[str, PortionConfig] | list[str]
    """Sources with their shares of the samples (or just a number), or a list of sources mixed
    by their sizes."""
    temperature: Positive = 1.0
    """For a list of sources: shares go with size ** (1 / temperature), so that above 1 small
    sources count for more."""
    pack_tiles: Count | None = None
    """Most tiles in one pack, which bounds the tower's memory; in native mode a tile is what
    becomes one visual token. None: only the sequence length
    sets a bound."""
    window: Count | None = None
    """Shards that are shuffled together, so that only these have to be on this machine;
    None: each source is shuffled as a whole."""
    objectives: dict[str, Positive] = {"next_token": 1.0}
    """Registered objectives with their weights in the loss."""
    negatives: Literal["step", "micro_batch"] = "step"
    """Where negatives of the contrastive objective come from, over all processes: from the
    whole `step`, for which a tower that trains runs forward twice, or from each `micro_batch`
    alone."""
    optim: OptimConfig
    """Optimizer settings."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Learning rate over the stage."""
    length: Length
    """When the stage ends."""
    global_batch: Count
    """Packs per optimizer step, over all ranks and accumulation."""
    micro_batch: Count = 1
    """Packs per forward pass; the rest is accumulated, exactly but for `negatives: micro_batch`
    and the objective load_balancing."""
    start_from: dict[Part, str] = {}
    """Weights to start a part from: `previous` (default), `recipe` (what the model section
    names) or a folder."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of a running mean of the tower's weights, such as 0.999; the mean is saved
    as `tower-ema` beside the parts, and training does not depend on it. None: none is kept."""
    save: tuple[Part, ...] = PARTS
    """Parts written as Hugging Face folders at the end of the stage."""

    @model_validator(mode="after")
    def _holds_together(self) -> Stage:
        if not self.data:
            raise ValueError("`data` names no source; give at least one of the recipe's `sources`")
        if self.micro_batch > self.global_batch:
            raise ValueError(
                f"micro_batch {self.micro_batch} is more than global_batch {self.global_batch}, all packs of a step"
            )
        if self.ema is not None and not self.share("tower"):
            raise ValueError(
                "`ema` is a mean of the tower's weights, and the tower does not train: add it to"
                " `train`, or leave `ema` out"
            )
        if isinstance(self.data, dict) and self.temperature != 1.0:
            raise ValueError(
                "`temperature` mixes a list of sources by their sizes; `data` gives shares: leave out one"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _bare_shares(cls, value: Any) -> Any:
        for field, key in (("train", "lr"), ("data", "share")):
            if isinstance(value, dict) and isinstance(value.get(field), dict):
                bare = {
                    k: {key: v} if isinstance(v, int | float) else v
                    for k, v in value[field].items()
                }
                value = {**value, field: bare}
        return value

    def shares(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """The mixture: a share for every source, given how many records each has."""
        if isinstance(self.data, dict):
            return {name: portion.share for name, portion in self.data.items()}
        # The temperature-scaled mixing of T5 (arXiv 1910.10683, section 3.5.2).
        return {name: float(sizes[name]) ** (1 / self.temperature) for name in self.data}

    def caps(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """The most draws of every source that has a limit."""
        portions = self.data if isinstance(self.data, dict) else {}
        return {
            name: max(1, round(p.epochs * sizes[name]))
            for name, p in portions.items()
            if p.epochs is not None
        }

    @property
    def micro_batch_counts(self) -> bool:
        """Whether `micro_batch` changes what is learnt: it bounds the negatives, or an objective
        is not linear in tokens.
        """
        return self.negatives == "micro_batch" or "load_balancing" in self.objectives

    def share(self, part: Part) -> float:
        """Share of the learning rate at which `part` trains; 0 when it is frozen."""
        return self.train[part].lr if part in self.train else 0.0
