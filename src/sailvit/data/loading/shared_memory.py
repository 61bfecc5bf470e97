"""Shared memory in which workers hand batches over: made once, before they start, and used
again and again.

Fresh shared memory costs a page fault per 4 KB in both processes, for tiles about as much time
as decoding them; slots that are used again cost the copy alone. The memory is anonymous, so
that a container's small /dev/shm does not matter, and only pages that are written take memory.
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
"""Tensors start at multiples of so many bytes, a cache line."""


@dataclass(frozen=True)
class SharedBatch:
    """A batch whose tensors lie in a slot; itself it is small enough for a pipe."""

    memory: int
    """Number of the shared memory."""
    slot: int
    """Slot in it."""
    places: Mapping[str, tuple[torch.dtype, tuple[int, ...], int]]
    """Type, shape and first byte of every tensor."""
    values: Mapping[str, Any]
    """The other fields."""

    def batch(self) -> Batch:
        """The batch, not copied; only the process that made the memory may call it, once."""
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
        """A free slot, the one freed last, so that few are ever written; None when all are in
        use.
        """
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
        # Tiles first: they were made at the slot's beginning, and stay where they are.
        for name, tensor in sorted(tensors.items(), key=lambda item: item[0] != "tiles"):
            places[name] = tensor.dtype, tuple(tensor.shape), at
            if tensor.data_ptr() != start + at:
                _view(space, *places[name]).copy_(tensor)
            at += -(-tensor.nbytes // _ALIGNED) * _ALIGNED
        values = {name: value for name, value in vars(batch).items() if name not in tensors}
        return SharedBatch(id(self), slot, places, values)

    def take(self, shared: SharedBatch) -> Batch:
        """The batch in its slot, which is free again when the last of its tensors is gone."""
        window = memoryview(self._slots[shared.slot])
        # Every tensor's storage holds a reference to this one object, so it goes with the last
        # tensor, views that autograd keeps included.
        weakref.finalize(window, self._free.append, shared.slot)
        tensors: dict[str, Any] = {
            name: _view(window, *place) for name, place in shared.places.items()
        }
        return Batch(**shared.values, **tensors)


_MEMORIES: weakref.WeakValueDictionary[int, SharedMemory] = weakref.WeakValueDictionary()
"""Every shared memory in use, by its number. DataLoader's pinning thread gets the batches
alone, so they have to find their memory here."""


def _view(space: Any, kind: torch.dtype, shape: tuple[int, ...], at: int) -> torch.Tensor:
    """The tensor in `space` from byte `at` on; one of four axes is channels-last, as tiles
    are.
    """
    # torch.frombuffer refuses to make a tensor without elements.
    if 0 in shape:
        return torch.empty(shape, dtype=kind)
    flat = torch.frombuffer(space, dtype=kind, count=torch.Size(shape).numel(), offset=at)
    if len(shape) == 4:
        return flat.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)
    return flat.view(shape) if len(shape) > 1 else flat
