"""Trying a model out without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """A context without gradients, after which modes, buffers and torch's random streams are as
    they were before.
    """
    modes = {module: module.training for module in model.modules()}
    buffers = {buffer: buffer.clone() for buffer in model.buffers()}
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
            for buffer, value in buffers.items():
                buffer.copy_(value)
    finally:
        for module, mode in modes.items():
            module.training = mode
