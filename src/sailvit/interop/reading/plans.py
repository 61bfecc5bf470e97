"""What will be written of a multimodal checkpoint, decided before anything is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from transformers import PretrainedConfig

from sailvit.checkpoint.streaming import Piece


@dataclass(frozen=True)
class PartPlan:
    """A part's folder."""

    config: PretrainedConfig
    """Its config.json."""
    pieces: tuple[Piece, ...]
    """Its tensors."""
    used: Collection[str]
    """Names of the checkpoint's tensors that it is made of."""
    notes: tuple[str, ...] = ()
    """What is unusual about it, a sentence each."""


@dataclass(frozen=True)
class Refusal:
    """Why a part is not taken out."""

    reason: str
    """The condition that fails, as a sentence without a capital and a full stop."""


Planned = PartPlan | Refusal


@dataclass(frozen=True)
class ModelPlan:
    """A multimodal checkpoint as three parts and what makes their inputs."""

    layout: str
    """What the checkpoint's layout is called."""
    tower: Planned
    """The vision tower."""
    connector: Planned
    """What lies between."""
    language: Planned
    """The language."""
    preprocessor: dict[str, Any]
    """The tower's preprocessor config."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of a recipe's model section, besides the parts' folders."""
    chat_template: str | None = None
    """The template of its prompts; None: the tokenizer's own."""
    notes: tuple[str, ...] = ()
    """What a user has to know, a sentence each."""
