"""Tensors written to a safetensors file one after the other, so that a save takes the memory of
one tensor at most.

torch's own writer for this format makes the whole file in memory first, from a copy of all
tensors: for a state of 1539 MiB it took 4622 MiB more where this one took 11, and 22 s instead
of 10 (benchmarks/checkpoint_memory.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls each type."""
_ALIGNED = 8
"""The format wants data to begin at a multiple of this."""
_SHARDING = "DCP_SHARDING_INFO"
"""Where torch's reader of this format finds which slice of a tensor a file holds."""


@dataclass(frozen=True)
class Piece:
    """A tensor, or this process's slice of one, that is fetched when its turn has come."""

    name: str
    """The tensor's name."""
    dtype: torch.dtype
    """Its type."""
    shape: tuple[int, ...]
    """Shape of the slice."""
    offsets: tuple[int, ...]
    """Where in the whole tensor the slice begins, per axis."""
    fetch: Callable[[], torch.Tensor]
    """Gives the slice, on any device."""

    @property
    def size(self) -> int:
        """Bytes of the slice."""
        return self.dtype.itemsize * torch.Size(self.shape).numel()


class StreamingWriter(HuggingFaceStorageWriter):
    """Writes what torch's distributed checkpointing planned for this process, a file per
    process.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), save_distributed=True)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this process's pieces; the future that comes back is done already, as the next
        optimizer step would change what is still to be written.
        """
        written: Future[list[WriteResult]] = Future()
        if plan.items:
            pieces = [_piece(item, planner) for item in plan.items]
            name = f"shard-{plan.storage_data['shard_index']:05d}.safetensors"
            write_pieces(Path(self.path) / name, pieces)
        written.set_result([])
        return written


def write_pieces(path: Path, pieces: Sequence[Piece]) -> None:
    """Write a safetensors file that torch's distributed checkpointing reads back."""
    offsets = {piece.name: {"saved_offsets": list(piece.offsets)} for piece in _ordered(pieces)}
    write_file(path, pieces, {_SHARDING: json.dumps(offsets), "format": "pt"})


def write_file(path: Path, pieces: Sequence[Piece], metadata: dict[str, str]) -> None:
    """Write a safetensors file, one piece after the other."""
    ordered = _ordered(pieces)
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for piece in ordered:
        start, end = end, end + piece.size
        header[piece.name] = {
            "dtype": DTYPE_NAMES[piece.dtype],
            "shape": list(piece.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNED)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for piece in ordered:
            file.write(_bytes(piece.fetch()))


def _ordered(pieces: Sequence[Piece]) -> list[Piece]:
    """The widest types first, so that every tensor is aligned to its own width."""
    return sorted(pieces, key=lambda piece: -piece.dtype.itemsize)


def _piece(item: Any, planner: SavePlanner) -> Piece:
    chunk = item.tensor_data.chunk
    return Piece(
        name=item.index.fqn,
        dtype=item.tensor_data.properties.dtype,
        shape=tuple(chunk.sizes),
        offsets=tuple(chunk.offsets),
        fetch=lambda: planner.resolve_data(item),  # type: ignore[arg-type, return-value]
    )


def _bytes(tensor: torch.Tensor) -> Any:
    """The tensor's bytes: its own memory where it lies on the CPU in one piece, else a copy of
    this one alone.
    """
    # Flat, as a scalar cannot be viewed as bytes; as bytes, since numpy knows no bfloat16.
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
