"""Where the parts of a recipe come from, and what stands for those that a study makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sailvit.core.recipe import ModelConfig, Part

SCHEME = "study://"
"""Begins what stands for a part's folder in a training's recipe: `study://KEY/PART`."""


def sources_of(model: ModelConfig) -> dict[Part, str]:
    """Where a model's parts come from; without a connector that is fresh."""
    found: dict[Part, str] = {"tower": model.tower, "language": model.language}
    if model.connector.source is not None:
        found["connector"] = model.connector.source
    return found


def with_sources(
    model: ModelConfig, change: Callable[[str], str], given: Mapping[Part, str] | None = None
) -> ModelConfig:
    """`model` with `change` applied to where its parts come from, or to what is `given`."""
    found = {part: change(text) for part, text in {**sources_of(model), **(given or {})}.items()}
    joined = model.connector.model_copy(update={"source": found.get("connector")})
    return model.model_copy(
        update={"tower": found["tower"], "language": found["language"], "connector": joined}
    )


def is_ours(text: str) -> bool:
    """Whether a text stands for a part that the study makes."""
    return text.startswith(SCHEME)
