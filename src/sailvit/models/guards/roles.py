"""Whether a checkpoint's config is one of a tower or of a language, checked before any weight
is read.
"""

from __future__ import annotations

from collections.abc import Collection
from inspect import Parameter, signature
from typing import Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from sailvit.core.errors import ModelError

_READS = {
    "input_ids": "text",
    "input_features": "audio",
    "input_values": "audio",
    "pixel_values_videos": "videos",
}
"""What models read, by the name of their input."""
_ROW = ["hidden_states", "grid_thw"]
"""First inputs of vision models that take patches in a row, as Qwen-VL's and GLM-4V's call them."""


def refuse_inputs(
    forward: Any, model_type: str, given: Collection[str] | None, tower: str = "the tower"
) -> None:
    """Refuse a model that cannot run on tiles.

    Args:
        forward: The model's forward.
        model_type: Its config's name.
        given: Inputs that it will be given; None: check only that it reads pixels.
        tower: What messages call it.

    Raises:
        ModelError: it reads text, audio or patches of its own, or needs more than pixels.
    """
    inputs, needed = _inputs(forward)
    if inputs and "pixel_values" not in inputs and not takes_patch_row(forward):
        reads = next((name for name in inputs if name in _READS), None)
        takes = (
            f"reads {_READS[reads]} ({reads}), not tiles"
            if reads
            else f"takes {' and '.join(needed or inputs)} instead of pixel_values, as models do"
            " that cut images of any shape into patches themselves"
        )
        raise ModelError(
            f"{tower} is a {model_type}, which {takes}; expected a vision model for square tiles"
            " (pixel_values), a ViT"
        )
    more = [name for name in needed if name not in given] if given is not None else []
    if more:
        raise ModelError(
            f"{tower} is a {model_type}, which needs {' and '.join(more)} besides the tiles;"
            " expected a ViT that takes pixel_values alone"
        )


def takes_patch_row(forward: Any) -> bool:
    """Whether a model takes flattened patches of all pictures in one row, and their grids."""
    return _inputs(forward)[0][: len(_ROW)] == _ROW


def _inputs(forward: Any) -> tuple[list[str], list[str]]:
    """The names of all inputs, and of those without a default."""
    kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    named = [
        parameter
        for parameter in signature(forward).parameters.values()
        if parameter.kind in kinds and parameter.name != "self"
    ]
    needed = [parameter.name for parameter in named if parameter.default is Parameter.empty]
    return [parameter.name for parameter in named], needed


def refuse_language(config: Any, source: str) -> None:
    """Refuse a config from which no causal language model can be made.

    Raises:
        ModelError: it is a vision or audio model, or an encoder-decoder.
    """
    # Code beside the weights brings a class that transformers does not list.
    if getattr(config, "auto_map", None):
        return
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"the language {source!r} is a {config.model_type}, an encoder-decoder, whose decoder"
            " learnt to read an encoder's states; expected a decoder alone (AutoModelForCausalLM)"
        )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"the language {source!r} is a {config.model_type}, of which transformers has no causal"
            " language model (AutoModelForCausalLM); expected one, such as a Llama, Qwen or Gemma"
        )
