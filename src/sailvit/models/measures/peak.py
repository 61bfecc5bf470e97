"""How fast this device can multiply matrices: the denominator of MFU."""

from __future__ import annotations

import time

import torch

from sailvit.core.recipe import Precision

_CLEARLY = 1.4
"""Times that bf16 products must be as fast as fp32 ones, on one thread: 2 with AVX512_BF16."""

_LEAST_PRODUCTS = 8
"""Matrix products behind a rate, so that one interruption does not decide it."""

BF16_PEAKS: dict[str, float] = {
    "GB200": 2250e12,
    "B200": 2250e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "H800": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "A800": 312e12,
    "A40": 150e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 5090": 209e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "MI300X": 1307e12,
}
"""Dense bf16 FLOP/s with fp32 accumulation from the makers' datasheets, by a part of the
device's name."""


def device_peak(device: torch.device, precision: Precision, seconds: float = 0.3) -> float:
    """Peak FLOP/s of `device`: the datasheet's where it is known, otherwise what a large matmul
    reaches right now.
    """
    listed = datasheet_peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    if listed is not None and precision == "bf16":
        return listed
    return matmul_rate(device, torch.bfloat16 if precision == "bf16" else torch.float32, seconds)


def datasheet_peak(name: str) -> float | None:
    """Dense bf16 FLOP/s of a device by its name; None when it is not listed. The longest listed
    name that fits counts.
    """
    fitting = [
        known for known in BF16_PEAKS if set(known.split()) <= set(name.replace("-", " ").split())
    ]
    return BF16_PEAKS[max(fitting, key=len)] if fitting else None


def faster_in_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies bf16 matrices clearly faster than fp32 ones.

    CPUs differ by a factor of 200 here: 2 to 4 times as fast with AVX512_BF16 or AMX, 60 times
    slower with AVX2 alone, where every number is converted one by one. So it is measured, in
    some 50 ms.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # On one thread: threads wait for each other, and on a busy machine the ratio of two such
    # rates came out between 0.01 and 600; on one thread it stays within 1.9 and 2.0 there.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rates = [matmul_rate(device, dtype, 0.02, 256) for dtype in (torch.bfloat16, torch.float32)]
    finally:
        torch.set_num_threads(threads)
    # Not just faster: a CPU that emulates bf16 about as fast as fp32 gains nothing from it.
    return rates[0] > _CLEARLY * rates[1]


def matmul_rate(
    device: torch.device, dtype: torch.dtype, seconds: float = 0.3, side: int | None = None
) -> float:
    """FLOP/s of the fastest of repeated square matmuls within about `seconds`.

    `side` is that of the matrices; None: as large as the device needs to reach its peak.
    """
    side = side or (8192 if device.type == "cuda" else 1024)
    left = torch.ones(side, side, device=device, dtype=dtype)
    right = torch.ones(side, side, device=device, dtype=dtype)
    fastest, done = float("inf"), 0
    torch.mm(left, right)  # the first call loads kernels
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or done < _LEAST_PRODUCTS:
        _wait(device)
        began = time.perf_counter()
        torch.mm(left, right)
        _wait(device)
        # The least time: whatever else the machine does only adds to it.
        fastest, done = min(fastest, time.perf_counter() - began), done + 1
    return 2.0 * side**3 / fastest


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
