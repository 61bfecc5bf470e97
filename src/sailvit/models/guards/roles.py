"""Whether a checkpoint's config is one of a tower or of a language, checked before any weight
is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from inspect import Parameter, signature
from typing import Any, NoReturn

from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from sailvit.core.errors import ModelError
from sailvit.models.guards.errors import short_reason

_READS = {
    "input_ids": "text",
    "input_features": "audio",
    "input_values": "audio",
    "pixel_values_videos": "videos",
}
"""What models read, by the name of their input."""
_AT_WILL = {
    *("pixel_values", "interpolate_pos_encoding", "bool_masked_pos", "head_mask", "labels"),
    *("return_dict", "attention_mask", "noise"),
}
"""Inputs with a default that models do without."""
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


def refuse_run(model: Any, size: int, error: BaseException) -> NoReturn:
    """Refuse a model that failed on a tile of `size` px, with what in it may be the cause.

    Raises:
        ModelError: always.
    """
    told = "".join(f"; {cause}" for cause in _causes(model, size))
    raise ModelError(
        f"the tower ({model.config.model_type}) cannot run on a tile of {size} px"
        f" ({short_reason(error)}){told}. Expected a ViT that makes one token of each patch of"
        " pixel_values, without anything else: name another checkpoint"
    ) from error


def _causes(model: Any, size: int) -> Iterator[str]:
    """What may keep a model from running on a tile."""
    own, frames = (getattr(model.config, name, None) for name in ("image_size", "num_frames"))
    parts: list[Any] = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    shrinking = sum(max(part.stride) > 1 for part in parts)
    if shrinking > 1:
        yield f"it has {shrinking} layers that shrink its grid, so it merges patches"
    if isinstance(frames, int) and frames > 1:
        yield f"it reads videos, {frames} frames at a time (num_frames)"
    elif isinstance(own, int) and own != size:
        yield f"it was made for tiles of {own} px: set model.image.size to {own}"
    if optional := _optional(model.forward):
        yield f"it also takes {' and '.join(optional)}, which a tile does not come with"


def _optional(forward: Any) -> list[str]:
    """Inputs that a model does without, it says: their default may be one that does not work."""
    return [
        name
        for name, parameter in signature(forward).parameters.items()
        if parameter.default is None and name not in _AT_WILL and not name.startswith("output_")
    ]


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
