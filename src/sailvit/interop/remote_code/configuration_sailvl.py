"""SAIL-VL2's config.json: a tower in AIMv2's original layout, `llm_config`, and how they meet."""

from __future__ import annotations

from typing import Any

from transformers import Aimv2VisionConfig

from .configuration_sailvit import SailvitConfig

_KEPT = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_channels", "image_size", "patch_size", "rms_norm_eps", "qkv_bias", "dtype"),
)
"""Settings that AIMv2's original config and transformers' call the same."""


class SailVLConfig(SailvitConfig):
    """The same model under SAIL-VL2's names."""

    model_type = "sailvl"

    def __init__(self, vision_config: Any = None, llm_config: Any = None, **kwargs: Any) -> None:
        """Read the tower's original config and the language's; other settings are kept."""
        if isinstance(vision_config, dict) and vision_config.get("model_type") == "aimv2":
            given = {name: vision_config[name] for name in _KEPT if name in vision_config}
            vision_config = Aimv2VisionConfig(**given, use_head=False)
        kwargs["text_config"] = llm_config or kwargs.get("text_config")
        super().__init__(vision_config=vision_config, **kwargs)
