"""Where features of a set lie on the disk: a file per layer, memory-mapped, with a byte per image
that says whether it is done.

A folder is named by what its features are made from, so another tower, another set or another
size never meets them. Processes write rows that never overlap, by plain writes at a place.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sailvit.core.disk import explained
from sailvit.core.errors import RunError
from sailvit.core.formatting import size
from sailvit.models.towers.tower import Tower

TODO, DONE, FAILED = 0, 1, 2
"""States of an image: not computed, computed, or not to be decoded."""
MEANS, TOKENS = "means", "tokens"
"""Files of mean patch features, and of all patch features."""
_SPARE = 0.9
"""Most of the free disk that features may take."""


@dataclass(frozen=True)
class Shape:
    """What is kept of every image."""

    count: int
    """Images."""
    layers: tuple[int, ...]
    """Layers, each a file."""
    patches: int
    """Patches of an image."""
    width: int
    """Numbers of a patch."""
    tokens: bool
    """Whether the features of all patches are kept, and not their means alone."""

    @property
    def bytes(self) -> int:
        """Size on the disk: float32 for means, float16 for patches."""
        each = 4 * self.width + (2 * self.patches * self.width if self.tokens else 0)
        return self.count * (len(self.layers) * each + 1)


class FeatureStore:
    """Features of a set's images."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        self.folder, self.shape = folder, shape
        self._files: dict[str, tuple[int, int]] = {}

    def create(self) -> None:
        """Make the files that are not there; one process calls it.

        Raises:
            RunError: the disk cannot hold them.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"{self.folder} cannot be made ({error.strerror}); give another with --cache"
            ) from error
        missing = [name for name in self._names() if not self._path(name).is_file()]
        # Files are made with holes, so a disk that is too small would only tell after hours of
        # work.
        free = os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_frsize
        if missing and self.shape.bytes > _SPARE * free:
            raise RunError(
                f"features would take {size(self.shape.bytes)} in {self.folder}, which has"
                f" {size(free)} free; choose fewer layers with --layers -1, fewer images with"
                " --limit, or another disk with --cache"
            )
        with explained(str(self.folder), "start again"):
            for name in missing:
                # Under another name first: a file that a kill cut short would pass for a whole one.
                draft = self._path(name).with_suffix(".part")
                kind, shape = self._form(name)
                np.lib.format.open_memmap(draft, "w+", kind, shape)
                draft.replace(self._path(name))

    @property
    def states(self) -> NDArray[np.uint8]:
        """uint8[N]: how far every image is."""
        # A copy: other processes write the mapped one meanwhile, and decisions need one state of
        # it.
        return np.array(self._mapped("states"))

    def means(self, layer: int) -> NDArray[np.float32]:
        """float32[N, D]: mean patch features after `layer`, memory-mapped."""
        found: NDArray[np.float32] = self._mapped(f"{MEANS}-{layer}")
        return found

    def tokens(self, layer: int) -> NDArray[np.float16]:
        """float16[N, P, D]: patch features after `layer`, memory-mapped."""
        found: NDArray[np.float16] = self._mapped(f"{TOKENS}-{layer}")
        return found

    def write(self, name: str, start: int, rows: NDArray[Any]) -> None:
        """Put rows into a file, from row `start` on."""
        if name not in self._files:
            mapped = self._mapped(name)
            self._files[name] = (int(mapped.offset), int(mapped[0].nbytes))
        # Written by a handle and not into a mapping, so that a full disk is an error and not
        # SIGBUS.
        offset, stride = self._files[name]
        with (
            explained(str(self._path(name)), "start again, which goes on"),
            self._path(name).open("r+b") as file,
        ):
            file.seek(offset + start * stride)
            file.write(np.ascontiguousarray(rows).tobytes())

    def _names(self) -> list[str]:
        kinds = [MEANS, TOKENS] if self.shape.tokens else [MEANS]
        # The states last: where they are, everything else is.
        return [f"{kind}-{layer}" for kind in kinds for layer in self.shape.layers] + ["states"]

    def _form(self, name: str) -> tuple[type, tuple[int, ...]]:
        count, width = self.shape.count, self.shape.width
        if name == "states":
            return np.uint8, (count,)
        if name.startswith(TOKENS):
            return np.float16, (count, self.shape.patches, width)
        return np.float32, (count, width)

    def _mapped(self, name: str) -> Any:
        return np.load(self._path(name), mmap_mode="r")

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"


def tower_hash(tower: Tower) -> str:
    """A hash of a tower's weights and of how it takes pixels."""
    digest = blake2b(repr((tower.preprocessing, tower.patch, tower.prefix)).encode(), digest_size=8)
    # Equal weights compute other features with another activation, or another epsilon of a norm.
    digest.update(tower.model.config.to_json_string(use_diff=False).encode())
    for name, tensor in sorted(tower.model.state_dict().items()):
        # Viewed as bytes, since numpy knows no bf16.
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(name.encode() + content.numpy().tobytes())
    return digest.hexdigest()
