"""Tensors of a checkpoint folder by name, read one at a time: a whole model never lies in
memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from sailvit.checkpoint.streaming import DTYPE_NAMES, Piece
from sailvit.core.errors import ModelError
from sailvit.models.guards.checkpoint_files import INDEX, weight_files

_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}
_COMPARED = 1 << 24
"""Bytes of two tensors that are compared at a time."""

Names = Mapping[str, "Stored"]
"""A checkpoint's tensors by their names in it."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, known by the file's header."""

    name: str
    """Its name in the checkpoint."""
    path: Path
    """Its safetensors file."""
    dtype: torch.dtype
    """Its type."""
    shape: tuple[int, ...]
    """Its shape."""
    begin: int
    """Place of its first byte in the file."""
    end: int
    """Place behind its last byte."""

    def read(self) -> torch.Tensor:
        """The tensor, in memory of its own."""
        # torch.frombuffer takes no empty buffer.
        if self.begin == self.end:
            return torch.empty(self.shape, dtype=self.dtype)
        # The library's own reader maps the whole file: pages of a shard stay in memory while any
        # of its tensors is held.
        data = bytearray(self.end - self.begin)
        with self.path.open("rb") as file:
            file.seek(self.begin)
            file.readinto(data)
        return torch.frombuffer(data, dtype=self.dtype).reshape(self.shape)

    def as_piece(
        self,
        name: str,
        change: Callable[[torch.Tensor], torch.Tensor] | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> Piece:
        """What is written as `name`: the tensor, or what `change` makes of it, of `shape`."""
        made = self.shape if shape is None else shape

        def fetch() -> torch.Tensor:
            """The tensor to write."""
            return self.read() if change is None else change(self.read())

        return Piece(name, self.dtype, made, (0,) * len(made), fetch)

    def same_bytes(self, other: Stored) -> bool:
        """Whether both hold the same, compared piece by piece."""
        if (self.dtype, self.shape) != (other.dtype, other.shape):
            return False
        with self.path.open("rb") as ours, other.path.open("rb") as theirs:
            ours.seek(self.begin)
            theirs.seek(other.begin)
            for left in range(self.end - self.begin, 0, -_COMPARED):
                count = min(left, _COMPARED)
                if ours.read(count) != theirs.read(count):
                    return False
        return True


def read_names(folder: Path) -> dict[str, Stored]:
    """All tensors of a folder, from its files' headers alone.

    Raises:
        ModelError: the index names tensors that no file holds, or a type is unknown.
    """
    found: dict[str, Stored] = {}
    for path in weight_files(folder):
        with path.open("rb") as file:
            # The format: the header's length in 8 bytes, the header as JSON, then the tensors.
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        for name, held in header.items():
            if name == "__metadata__":
                continue
            if held["dtype"] not in _DTYPES:
                raise ModelError(
                    f"{path.name} holds {name} as {held['dtype']}, a type that is not read here;"
                    " expected plain weights in fp32, fp16 or bf16"
                )
            begin, end = (8 + length + offset for offset in held["data_offsets"])
            kind, shape = _DTYPES[held["dtype"]], tuple(held["shape"])
            found[name] = Stored(name, path, kind, shape, begin, end)
    _check_index(folder, found)
    return found


def _check_index(folder: Path, found: Names) -> None:
    if not (folder / INDEX).is_file():
        return
    listed = json.loads((folder / INDEX).read_text(encoding="utf-8")).get("weight_map", {})
    if missing := sorted(listed.keys() - found.keys()):
        raise ModelError(
            f"{INDEX} in {folder} lists {len(missing)} tensors that its files do not hold"
            f" ({', '.join(missing[:3])}); the files are of another version: download all again"
        )
