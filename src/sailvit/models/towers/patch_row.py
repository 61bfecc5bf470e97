"""Towers that take the patches of all pictures in one row, with their grids, as Qwen-VL's do.

They cut no picture themselves: patches come flattened, in blocks that a merger joins later, and
tokens leave in that order, or in that of attention windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from sailvit.core.errors import ModelError
from sailvit.models.guards.roles import takes_patch_row
from sailvit.models.towers.families import Family


def row_family(model: PreTrainedModel) -> Family | None:
    """How a model that takes a row of patches and their grids is given pixels, and its tokens
    are put in order; None for other models.
    """
    if not takes_patch_row(model.forward):
        return None
    config = model.config
    merge = int(getattr(config, "spatial_merge_size", 1))
    # Videos give each patch several frames; a picture is a still of that many.
    frames: Any = getattr(config, "temporal_patch_size", 1)
    window = getattr(config, "window_size", None)
    row = PatchRow(
        name=config.model_type,
        merge=merge,
        frames=frames if isinstance(frames, int) else int(frames[0]),
        window=int(window) // merge if window else None,
    )
    return Family(pixels=row.inputs, raster=row.raster)


@dataclass(frozen=True)
class PatchRow:
    """The order of patches in one model's row."""

    name: str
    """The model's, for messages."""
    merge: int
    """Side, in patches, of the blocks that the model's own merger joins."""
    frames: int
    """How many times each patch is given."""
    window: int | None
    """Side of an attention window divided by `merge`, in pixels, where blocks run window by
    window; None where they run row by row."""

    def inputs(self, pixels: torch.Tensor, patch: int) -> dict[str, torch.Tensor | None]:
        """The tower's inputs for pixels float[I, C, H, W]: patches float[I*P,
        C*frames*patch*patch], block by block, and the pictures' grids int64[I, 3].
        """
        pictures, channels, height, width = pixels.shape
        rows, columns = height // patch, width // patch
        self._check(rows, columns)
        down, across = rows // self.merge, columns // self.merge
        cells = pixels.reshape(
            pictures, channels, down, self.merge, patch, across, self.merge, patch
        )
        cells = cells.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(-1, channels, 1, patch, patch)
        return {
            "hidden_states": cells.expand(-1, -1, self.frames, -1, -1).flatten(1),
            # Where the pixels are: positions are computed from the grids there.
            "grid_thw": torch.tensor([[1, rows, columns]] * pictures, device=pixels.device),
        }

    def raster(self, states: torch.Tensor, pixels: torch.Tensor, patch: int) -> torch.Tensor:
        """Tokens float[I, P, D], row by row, from states float[I*P, D] of the model for pixels
        float[I, C, H, W].
        """
        pictures, _, height, width = pixels.shape
        rows, columns = height // patch, width // patch
        if states.shape[0] != pictures * rows * columns:
            return states[None]  # who counts the tokens says what is wrong with their number
        tokens = states.reshape(pictures, rows * columns, -1)
        return tokens.index_select(1, self.order(rows, columns, patch).argsort().to(states.device))

    def order(self, rows: int, columns: int, patch: int) -> torch.Tensor:
        """Which patch, counted row by row, each token int64[P] of a picture is."""
        down, across = rows // self.merge, columns // self.merge
        places = torch.arange(rows * columns).reshape(down, self.merge, across, self.merge)
        blocks = places.transpose(1, 2).reshape(down * across, -1)
        if self.window is not None:
            side = max(1, self.window // patch)
            window = torch.arange(down)[:, None] // side * across + torch.arange(across) // side
            blocks = blocks[window.flatten().argsort(stable=True)]
        return blocks.flatten()

    def _check(self, rows: int, columns: int) -> None:
        if rows % self.merge or columns % self.merge:
            raise ModelError(
                f"the tower ({self.name}) takes patches in blocks of {self.merge} x {self.merge}, and"
                f" a picture has {rows} x {columns}; set model.image.size to a multiple of"
                f" {self.merge} patches, and in native resolution model.connector.merge to"
                f" {self.merge} or a multiple of it"
            )
