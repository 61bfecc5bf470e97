"""Fused kernels of liger-kernel for the language's norms, MLPs and rotary embeddings, where
they are installed.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel
from transformers.integrations.liger import apply_liger_kernel
from transformers.utils import is_liger_kernel_available

OWN_LOSS = {"cross_entropy": False, "fused_linear_cross_entropy": False}
"""Options that leave losses alone: `languages/head.py` computes them, for answers only."""


def fuse(language: PreTrainedModel, device: torch.device) -> bool:
    """Put liger's kernels into the language, in place, where they can run; the result says
    whether they can.

    They are Triton kernels, so they need a GPU. A family that liger does not know is left as it
    is. Names of parameters never change.
    """
    if device.type != "cuda" or not is_liger_kernel_available():
        return False
    apply_liger_kernel(language, OWN_LOSS)
    return True
