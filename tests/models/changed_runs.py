"""What both tables of parts compare: a model with recomputed, compiled or sharded blocks, and the plain one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

CLOSE = 1e-4
"""Largest difference, relative to the largest, that counts as equal."""


@contextmanager
def captured() -> Iterator[None]:
    """Blocks that are compiled meanwhile are captured, differentiated and cut into operators as a
    compiled run does it, without the C++ compiler's minute.
    """
    real = torch.nn.Module.compile
    torch.nn.Module.compile = lambda block: real(block, backend="aot_eager_decomp_partition")  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.nn.Module.compile = real  # type: ignore[method-assign]
        torch._dynamo.reset()


@contextmanager
def process_alone(store: Path) -> Iterator[None]:
    """A process group of this process alone; `store` is a file that is not there yet."""
    dist.init_process_group("gloo", store=dist.FileStore(str(store), 1), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def told_apart(plain: Sequence[torch.Tensor | None], other: Sequence[torch.Tensor | None]) -> str:
    """The worst difference of an output and its gradients; "equal" where there is none.

    The output comes first, and is relative to its own largest value; gradients to that of all, as
    those that are nothing by theory, such as of key biases, are noise.
    """
    worst, largest = 0.0, max((float(g.abs().max()) for g in plain[1:] if g is not None), default=0)
    for place, (one, two) in enumerate(zip(plain, other, strict=True)):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            scale = (largest if place else float(one.abs().max())) or 1.0
            worst = max(worst, float((one - two).abs().max()) / scale)
    assert worst <= CLOSE, f"differs by {worst:.0e}"
    return f"{worst:.0e}" if worst else "equal"
