"""Fused kernels of liger-kernel for the language's norms, MLPs and rotary embeddings, where
they are installed.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel
from transformers.integrations.liger import apply_liger_kernel
from transformers.utils import is_liger_kernel_available

OWN_LOSS = {"cross_entropy": False, "fused_linear_cross_entropy": False}
"""What liger would do about losses: nothing, as `models.head` takes them at answer positions
only."""


def fuse(language: PreTrainedModel, device: torch.device) -> bool:
    """Whether liger's kernels may now run in this language, changed in place; names of
    parameters stay as they are.

    They are Triton kernels, so they need a GPU. A family that liger does not know stays as it
    is.
    """
    if device.type != "cuda" or not is_liger_kernel_available():
        return False
    apply_liger_kernel(language, OWN_LOSS)
    return True
