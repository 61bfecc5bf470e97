"""The part of a language that makes hidden states, without its head."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel


def body_name(language: Any) -> str:
    """Its name in the language; empty where the language is its own body.

    transformers calls it by the class's `base_model_prefix`, which Llama 4's class does not have;
    there it is the one module that is a model by itself.
    """
    if language.base_model is not language:
        return str(language.base_model_prefix)
    inside = [name for name, part in language.named_children() if isinstance(part, PreTrainedModel)]
    return inside[0] if len(inside) == 1 else ""


def body_of(language: Any) -> nn.Module:
    """The module itself; the language where it is its own body."""
    name = body_name(language)
    made: nn.Module = language.get_submodule(name) if name else language
    return made
