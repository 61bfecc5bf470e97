"""How a run is watched while it trains, as settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sailvit.core.config import Config

Tool = Literal["tensorboard", "wandb", "trackio"]
"""A tool that shows curves."""


class MonitoringConfig(Config):
    """What a run looks at beside its losses, how often, and where its curves go."""

    every: Annotated[int, Field(ge=1)] | None = 100
    """Steps between looks, if the budget allows them; none takes no looks."""
    share: Annotated[float, Field(gt=0, le=1)] | None = 0.02
    """Most of the run's time that looks may take: a look that would exceed it is left out; none sets no limit."""
    source: str | None = None
    """Source of the images and texts that are looked at. One that no stage draws from makes them held out; none takes
    them from the stages' own sources."""
    tiles: Annotated[int, Field(ge=2)] = 64
    """Tiles that the tower's features are compared on, one per image."""
    texts: Annotated[int, Field(ge=1)] = 64
    """Texts without images that the language's perplexity is measured on."""
    report: tuple[Tool, ...] = ("tensorboard",)
    """Tools that are given the curves of losses, rates and looks; `wandb` and `trackio` are extras of the package."""
