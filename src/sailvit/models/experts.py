"""Languages with experts: whether their config asks for an auxiliary loss, and that loss."""

from __future__ import annotations

import sys
from typing import Any

import torch
from transformers import PreTrainedModel

from sailvit.core.errors import ModelError

_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_USED = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "top_k_experts")


def asks_for_balance(config: Any) -> float | None:
    """The weight that a language's config gives its auxiliary loss; None when it asks for none."""
    text = config.get_text_config()
    if not _first(text, _COUNTS):
        return None
    weight = float(getattr(text, "router_aux_loss_coef", None) or 0.0)
    asked = weight > 0 or bool(getattr(text, "output_router_logits", False))
    return weight if asked else None


def balance(language: PreTrainedModel, layers: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The auxiliary loss float[] of scores float[T, E] per layer, by the function of the
    language's own family.

    Raises:
        ModelError: the family has none, or does not name its experts in its config.
    """
    config = language.config.get_text_config()
    function = getattr(sys.modules[type(language).__module__], "load_balancing_loss_func", None)
    experts, used = _first(config, _COUNTS), _first(config, _USED)
    if function is None or not experts or not used:
        raise ModelError(
            f"{type(language).__name__} has no auxiliary loss for its experts in transformers; leave"
            " load_balancing out of `objectives`"
        )
    loss: torch.Tensor = function(layers, experts, used)
    return loss


def _first(config: Any, names: tuple[str, ...]) -> int | None:
    return next((n for name in names if isinstance(n := getattr(config, name, None), int)), None)
