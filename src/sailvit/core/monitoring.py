"""How a run is monitored while it trains, as settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sailvit.core.config import Config

Tool = Literal["tensorboard", "wandb", "trackio"]
"""A tool that logs a run's numbers and draws their curves."""


class MonitoringConfig(Config):
    """What a run measures beside its losses, how often, and where its numbers are logged."""

    every: Annotated[int, Field(ge=1)] | None = 100
    """Steps between monitoring points, if the budget allows them; None: nothing is
    monitored."""
    share: Annotated[float, Field(gt=0, le=1)] | None = 0.02
    """Largest share of the run's time that monitoring may take: a point that would exceed it is
    left out, but for those at the start and end of a stage; None: no limit."""
    source: str | None = None
    """Source of the images and texts to measure on; they are held out when no stage draws from
    it. None: they come from the stages' own sources."""
    tiles: Annotated[int, Field(ge=2)] = 64
    """Tiles that the tower's features are compared on, one per image."""
    texts: Annotated[int, Field(ge=1)] = 64
    """Texts without images that the language's perplexity is measured on."""
    loggers: tuple[Tool, ...] = ("tensorboard",)
    """Tools that log losses, rates and monitoring points; `wandb` and `trackio` are extras of
    the package."""
