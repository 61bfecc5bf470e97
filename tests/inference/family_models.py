"""Tiny models with a random language of any family."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tiny_languages import language_of

from sailvit.models.loading.build import ModelBundle
from sailvit.models.structure.mllm import MLLM
from sailvit.models.structure.packing_choice import choose_way
from tiny_parts import Parts


def bundle_of(parts: Parts, family: str, **settings: Any) -> ModelBundle:
    """Tiny parts with a random language of a family, by transformers' model type."""
    made = parts.build(**settings)
    mllm = MLLM(
        made.mllm.tower, made.mllm.connector, language_of(family), made.layout.placeholder_id
    )
    choose_way(mllm, "auto")
    return replace(made, mllm=mllm)
