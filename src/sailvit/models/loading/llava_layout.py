"""The original layout of LLaVA and its kin: the config names the tower and does not describe it.

Whoever loads such a checkpoint through the named tower gets that one's own weights, even where
the checkpoint holds trained ones; here the checkpoint's are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, LlavaConfig

NAMED_TOWER = "mm_vision_tower"
"""The key of such a config that names the tower: a hub id or folder."""


def is_llava(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's config.json is one of the original layout."""
    return isinstance(config.get(NAMED_TOWER), str) and "vision_config" not in config


def llava_config(config: Mapping[str, Any]) -> LlavaConfig:
    """Transformers' config of the whole, with the named tower's own as its vision half."""
    named = AutoConfig.from_pretrained(config[NAMED_TOWER])
    half = getattr(named, "vision_config", None) or named
    whole = LlavaConfig(vision_config=half)
    setattr(whole, NAMED_TOWER, config[NAMED_TOWER])
    return whole
