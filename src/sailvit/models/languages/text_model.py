"""The language of a multimodal checkpoint: its text model alone, proved to give the same scores
on text.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    PretrainedConfig,
    PreTrainedModel,
)

from sailvit.core.errors import ModelError
from sailvit.models.guards.errors import ForeignErrors, Loading
from sailvit.models.guards.untouched import untouched

_EQUAL = 1e-4
"""Largest difference between the scores of both, as a share of the largest score."""


def text_config(whole: Any, source: str) -> Any:
    """The config of the causal language model in a checkpoint; `whole` itself where it is one
    already.

    Raises:
        ModelError: the text model has no causal language model class that could be saved and
            loaded by itself.
    """
    with Loading("language", source):
        text = whole.get_text_config()
    if text is whole or text.model_type == whole.model_type or getattr(whole, "auto_map", None):
        return whole
    if type(text) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return text
    with Loading("language", source):
        alike = _alike(text)
    if alike is None:
        raise ModelError(
            f"the language {source!r} is a {whole.model_type}, whose text model ({text.model_type})"
            " transformers cannot save and load by itself (AutoModelForCausalLM does not know it);"
            " name a checkpoint of the text model alone"
        )
    return alike


def text_note(whole: Any, text: Any) -> str:
    """What the run reports of a language that was taken out of a multimodal model."""
    return (
        f"the language is the text model ({text.model_type}) of a {whole.model_type}: it alone is"
        " trained and saved, with its own head; its scores on text were compared and are the same"
    )


def _alike(text: Any) -> Any:
    """The config of a language of which `text` is a variant for images (qwen2_vl_text: qwen2);
    None without one.

    That both compute the same on text is proved when weights are there.
    """
    parts = text.model_type.split("_")
    for count in range(len(parts) - 1, 0, -1):
        name = "_".join(parts[:count])
        if name in CONFIG_MAPPING and CONFIG_MAPPING[name] in MODEL_FOR_CAUSAL_LM_MAPPING:
            given = {key: value for key, value in text.to_dict().items() if key != "model_type"}
            return CONFIG_MAPPING[name](**given)
    return None


def load_text_model(
    source: str, whole: Any, text: PretrainedConfig, options: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The text model with the checkpoint's weights and its own head, in fp32, and what loading
    it found.

    Raises:
        ModelError: it cannot be taken out, or gives other scores than the whole model does on
            text.
    """
    made = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(whole), None)
    made = made or MODEL_FOR_CAUSAL_LM_MAPPING.get(type(whole), None)
    if made is None:
        raise ModelError(
            f"the language {source!r} is a {whole.model_type}, which transformers has no generating"
            " model of; name a checkpoint of its text model alone"
        )
    with Loading("language", source):
        model, info = made.from_pretrained(
            source,
            config=whole,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    with ForeignErrors(
        f"the text model of {source} ({whole.model_type}) cannot be taken by itself"
    ):
        alone, found = _taken_out(model, text)
        _prove(model, alone, source)
    whole_names = {id(tensor): name for name, tensor in model.named_parameters()}
    read = [*model.get_decoder().parameters(), *model.get_output_embeddings().parameters()]
    # What the checkpoint lacks was drawn at random there: it is missing here as well.
    used = {whole_names[id(parameter)] for parameter in read}
    found["missing_keys"] = set(found["missing_keys"]) | (used & set(info["missing_keys"]))
    alone.generation_config = model.generation_config
    return alone, found


def _taken_out(model: Any, text: PretrainedConfig) -> tuple[PreTrainedModel, dict[str, Any]]:
    kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(text)]
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    prefix = kind.base_model_prefix
    # Through `from_pretrained` and not by assignment, which would not report missing names.
    state = {f"{prefix}.{name}": tensor for name, tensor in decoder.state_dict().items()}
    # Read off the tensors: the config of a part need not repeat what the whole one says.
    tied = head.weight is model.get_input_embeddings().weight
    text.tie_word_embeddings = tied
    if not tied:
        state |= {f"lm_head.{name}": tensor for name, tensor in head.state_dict().items()}
    alone, found = kind.from_pretrained(
        None, config=text, state_dict=state, dtype=torch.float32, output_loading_info=True
    )
    return alone, found


def _prove(whole: Any, alone: PreTrainedModel, source: str) -> None:
    size = alone.get_input_embeddings().num_embeddings
    # The first ids are often padding and other special tokens.
    tokens = torch.arange(3, 15)[None] % size
    with untouched(whole), untouched(alone):
        expected = whole(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
        found = alone(input_ids=tokens).logits
    if found.shape == expected.shape:
        apart = (found - expected).abs().max() / expected.abs().max().clamp_min(1e-12)
        if float(apart) <= _EQUAL:
            return
    raise ModelError(
        f"the text model of {source} ({alone.config.model_type}) gives other scores by itself than"
        f" in {whole.config.model_type}, so it is not what that one learnt; name a checkpoint of"
        " the text model alone"
    )
