"""Trying a model out without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """A context in evaluation mode and without gradients, after which modes, buffers and torch's
    random streams are as they were before.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    devices = {p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"}
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=sorted(devices)):
            yield
    finally:
        # Both the value and the tensor: transformers' dynamic rotary scaling registers a new
        # one in the buffer's place.
        for module, name, buffer, kept in buffers:
            if not torch.equal(buffer, kept):
                buffer.copy_(kept)
            module._buffers[name] = buffer
        for module, mode in modes:
            module.training = mode
