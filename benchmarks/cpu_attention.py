"""Short bf16 attention on the CPU: plain matrix products against torch's fused kernel, forward and backward.

python benchmarks/cpu_attention.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from publish import publish
from torch.nn.functional import scaled_dot_product_attention

from sailvit.models.packing.short_attention import short_attention

SHAPES = ((24, 2, 40, 64), (128, 2, 64, 64), (128, 4, 64, 32), (32, 12, 197, 64), (8, 16, 512, 64))
"""Rows, heads, positions, head width: the demo's language and tower, smaller heads, a ViT-B/16, the limit."""


def milliseconds(
    attend: Callable[..., torch.Tensor], shape: tuple[int, ...], repeats: int = 7
) -> float:
    """Median duration of forward plus backward."""
    tensors = [torch.randn(shape, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    seed = torch.randn(shape, dtype=torch.bfloat16)
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        attend(*tensors).backward(seed)
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times[1:])


def main() -> None:
    """Time every shape in turn."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows = []
    for shape in SHAPES:
        ours, fused = (
            milliseconds(short_attention, shape),
            milliseconds(scaled_dot_product_attention, shape),
        )
        rows.append(
            {
                "shape": shape,
                "ms": round(ours, 2),
                "fused_ms": round(fused, 2),
                "ratio": round(fused / ours, 2),
            }
        )
        print(rows[-1])
    publish("cpu_attention", "python benchmarks/cpu_attention.py", {"rows": rows})


if __name__ == "__main__":
    main()
