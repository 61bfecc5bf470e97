"""How much memory there is, and how much was in use at most."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

import torch

_PROC = "/proc/self"
"""Where Linux tells of this process."""
_MEMINFO = "/proc/meminfo"
"""Where Linux tells of all memory."""
_CONTAINER = "/sys/fs/cgroup"
"""Where a container's limit stands (cgroup v2)."""
_RESET_PEAK = "5"
"""What resets the peak of resident memory when written to clear_refs (man 5 proc)."""


def free_memory(device: torch.device) -> int | None:
    """Bytes left on `device`; for the CPU those of this machine or container; None where
    nothing tells.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = []
    with suppress(OSError, StopIteration):
        # MemFree would not do: it leaves out the file cache, which the kernel gives back.
        lines = Path(_MEMINFO).read_text(encoding="utf-8").splitlines()
        found.append(
            next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        )
    # Without a limit the file says "max".
    with suppress(OSError, ValueError):
        limit, used = (
            int(Path(_CONTAINER, f"memory.{name}").read_text(encoding="utf-8"))
            for name in ("max", "current")
        )
        found.append(max(limit - used, 0))
    return min(found, default=None)


class PeakMemory:
    """The most memory in use since `restart`: the device's own where it has some, otherwise
    that of this process.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.kind = "device" if device.type == "cuda" else "process"
        """Whose memory it is."""

    def restart(self) -> None:
        """Count from what is in use now; where the system cannot forget a peak, from the start
        of the process.
        """
        if self.kind == "device":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        with suppress(OSError):
            Path(_PROC, "clear_refs").write_text(_RESET_PEAK, encoding="ascii")

    def bytes(self) -> int:
        """The peak so far."""
        if self.kind == "device":
            return torch.cuda.max_memory_allocated(self._device)
        try:
            lines = Path(_PROC, "status").read_text(encoding="utf-8").splitlines()
        except OSError:
            # In KiB, and never reset: the peak of the whole process (man 2 getrusage).
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
