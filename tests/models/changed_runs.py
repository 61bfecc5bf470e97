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
def captured(backend: str = "aot_eager_decomp_partition") -> Iterator[None]:
    """Blocks that are compiled meanwhile are captured, differentiated and cut into operators as a
    compiled run does it, without the C++ compiler's minute.

    `aot_eager` is quicker, and stops at views in the gradients of gated delta rules.
    """
    real = torch.nn.Module.compile
    torch.nn.Module.compile = lambda block: real(block, backend=backend)  # type: ignore[method-assign, assignment]
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

    The output comes first. Each is relative to its own largest value, gradients to a thousandth of
    the largest of all at least: those that are nothing by theory, such as of key biases, are noise.
    """
    given = [float(gradient.abs().max()) for gradient in plain[1:] if gradient is not None]
    worst, least = 0.0, 1e-3 * max(given, default=0.0)
    for place, (one, two) in enumerate(zip(plain, other, strict=True)):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            scale = max(float(one.abs().max()), least if place else 0.0) or 1.0
            worst = max(worst, float((one - two).abs().max()) / scale)
    assert worst <= CLOSE, f"differs by {worst:.0e}"
    return f"{worst:.0e}" if worst else "equal"
