"""Handing batches over: memory that is shared with workers once, and used again and again.

Fresh shared memory costs a page fault per 4 KB on either side, for tiles about as much as
decoding them; slots that are used again cost the copy alone. They are anonymous, so that a
container's small /dev/shm does not matter, and only what is touched is taken from the machine.
"""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sailvit.core.batch import Batch

_ALIGNED = 64
"""Bytes that tensors are aligned to, a cache line."""


@dataclass(frozen=True)
class SharedBatch:
    """A batch whose tensors lie in a slot; small enough for a pipe."""

    memory: int
    """Number of the memory that holds it."""
    slot: int
    """The slot."""
    places: Mapping[str, tuple[torch.dtype, tuple[int, ...], int]]
    """Type, shape and first byte of every tensor."""
    values: Mapping[str, Any]
    """The other fields."""

    def batch(self) -> Batch:
        """The batch where it lies; for the process that made the memory, once."""
        return _MEMORIES[self.memory].take(self)


class SharedMemory:
    """Slots of `size` bytes for one batch each, made before the workers that fill them.

    `claim` and `take` are for the process that made it, `space` and `put` for its workers.
    """

    def __init__(self, slots: int, size: int) -> None:
        self._slots = [mmap.mmap(-1, size) for _ in range(slots)]
        self._free = list(range(slots))
        _MEMORIES[id(self)] = self

    def claim(self) -> int | None:
        """A free slot, the one that was freed last; None when all are in use."""
        return self._free.pop() if self._free else None

    def space(self, slot: int) -> torch.Tensor:
        """uint8[n]: all bytes of a slot."""
        return torch.frombuffer(self._slots[slot], dtype=torch.uint8)

    def put(self, slot: int, batch: Batch) -> SharedBatch:
        """Copy a batch into a slot, except for tiles that were made at its beginning."""
        space, places, at = self._slots[slot], {}, 0
        start = self.space(slot).data_ptr()
        tensors = {
            name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)
        }
        for name, tensor in sorted(tensors.items(), key=lambda item: item[0] != "tiles"):
            places[name] = tensor.dtype, tuple(tensor.shape), at
            if tensor.data_ptr() != start + at:
                _view(space, *places[name]).copy_(tensor)
            at += -(-tensor.nbytes // _ALIGNED) * _ALIGNED
        values = {name: value for name, value in vars(batch).items() if name not in tensors}
        return SharedBatch(id(self), slot, places, values)

    def take(self, shared: SharedBatch) -> Batch:
        """The batch in its slot, which is free again when the last tensor that looks into it is
        gone.
        """
        window = memoryview(self._slots[shared.slot])
        # Storages hold the window, so its end is the end of the last tensor, views that
        # autograd keeps included.
        weakref.finalize(window, self._free.append, shared.slot)
        tensors: dict[str, Any] = {
            name: _view(window, *place) for name, place in shared.places.items()
        }
        return Batch(**shared.values, **tensors)


_MEMORIES: weakref.WeakValueDictionary[int, SharedMemory] = weakref.WeakValueDictionary()
"""Every shared memory in use, by its number: threads that pin memory are given batches and
nothing else."""


def _view(space: Any, kind: torch.dtype, shape: tuple[int, ...], at: int) -> torch.Tensor:
    """The tensor that lies in `space` from byte `at` on; one of four axes channels-last, as
    tiles are.
    """
    if 0 in shape:
        return torch.empty(shape, dtype=kind)
    flat = torch.frombuffer(space, dtype=kind, count=torch.Size(shape).numel(), offset=at)
    if len(shape) == 4:
        return flat.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)
    return flat.view(shape) if len(shape) > 1 else flat
