"""All images of a batch through the tower's blocks as one packed row, whatever their grids.

The model stays as it is. What lies before its first block, patch and position embeddings, runs
once per grid; then the tokens of all images take the place of one image's, and attention, which
is told where each image lies, stays within it. Where a tower's blocks are sharded over processes,
all have the same number of calls in this way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from sailvit.core.batch import Grids
from sailvit.core.errors import ModelError
from sailvit.models.blocks import find_blocks
from sailvit.models.packing.segments import Segments
from sailvit.models.packing.tower_attention import attending_within
from sailvit.models.towers.native import by_grid, in_order, into_tiles
from sailvit.models.towers.tower import Tower


class RowReader:
    """Reads all images of a batch in one call of a tower's blocks."""

    def __init__(self, tower: Tower) -> None:
        """ModelError for a tower without a list of blocks.

        Blocks then take `segments` too, and hand it to the attention that runs in them. Models
        hand keywords down in other ways each, or not at all.
        """
        self._name, self._blocks = find_blocks(tower.model)
        if not self._blocks:
            raise ModelError(f"{tower.model.config.model_type} has no list of blocks")
        for block in self._blocks:
            block.forward = partial(_within, block.forward)

    def undo(self) -> None:
        """Make the blocks what they were."""
        for block in self._blocks:
            del block.forward

    def __call__(self, tower: Tower, tiles: torch.Tensor, grids: Grids) -> torch.Tensor:
        """Patch features float[I, P, D], of shape (tiles, patches, width), of tiles
        uint8[I, C, H, W] that are, image by image, grids of so many rows and columns.
        """
        merge = tiles.shape[-1] // tower.patch
        groups = list(by_grid(tiles, grids))
        # Of the smallest images: all that their pass computes before the blocks is dropped.
        least = min((pictures for _, _, pictures in groups), key=lambda each: each[0].numel())
        with self._entries(tower) as entries:
            entering = [_entering(tower, pictures) for _, _, pictures in groups]
            entries[0].row = torch.cat([tokens.flatten(0, 1) for tokens in entering])[None]
            segments = _segments(entering)
            for entry in entries:
                entry.segments = segments
            found = tower.tokens(least[:1])[0]
        made = []
        sizes = [tokens.shape[0] * tokens.shape[1] for tokens in entering]
        parts = torch.split(found, sizes)
        for (grid, _, _), each, tokens in zip(groups, parts, entering, strict=True):
            patches = grid[0] * grid[1] * merge**2
            whole = each.view(*tokens.shape[:2], -1)
            own = whole[:, tower.prefix : tower.prefix + patches]
            made.append(into_tiles(own, grid, merge))
        return in_order(made, [places for _, places, _ in groups])

    @contextmanager
    def _entries(self, tower: Tower) -> Iterator[list[_Entry]]:
        """A context in which something stands before every block of the tower."""
        blocks = tower.model.get_submodule(self._name)
        assert isinstance(blocks, nn.ModuleList)
        entries = [_Entry(block, first=index == 0) for index, block in enumerate(self._blocks)]
        try:
            for index, entry in enumerate(entries):
                blocks[index] = entry
            yield entries
        finally:
            for index, block in enumerate(self._blocks):
                blocks[index] = block


def _within(forward: Callable[..., Any], *given: Any, segments: Any = None, **keywords: Any) -> Any:
    """A block's forward, in which attention knows the segments; recomputation calls it too."""
    with attending_within(segments):
        return forward(*given, **keywords)


def _entering(tower: Tower, pictures: torch.Tensor) -> torch.Tensor:
    """What enters the tower's first block, float[M, N, D], of pictures uint8[M, C, H, W]."""
    try:
        tower.tokens(pictures)
    except _EnteredError as found:
        return found.tokens
    raise ModelError(f"{tower.model.config.model_type} does not run through its blocks in order")


class _EnteredError(Exception):
    """Ends a pass before the first block."""

    def __init__(self, tokens: torch.Tensor) -> None:
        super().__init__("a pass ends before the first block")
        self.tokens = tokens


class _Entry(nn.Module):
    """Stands before a block: it ends a pass there, or gives the block a row and its segments."""

    def __init__(self, block: nn.Module, *, first: bool) -> None:
        super().__init__()
        self.block = block
        self.first = first
        self.row: torch.Tensor | None = None
        """float[1, T, D]: what the first block reads; None: passes end here."""
        self.segments: Segments | None = None
        """Where the row's images lie."""

    def forward(self, tokens: torch.Tensor, *rest: Any, **keywords: Any) -> Any:
        """The block's output for the row, float[1, T, D]."""
        if self.segments is None:
            raise _EnteredError(tokens)
        read = self.row if self.first else tokens
        return self.block(read, *rest, segments=self.segments, **keywords)


def _segments(entering: Sequence[torch.Tensor]) -> Segments:
    """Where each image lies in the row of tokens float[M, N, D] of every group."""
    lengths = [tokens.shape[1] for tokens in entering for _ in range(len(tokens))]
    bounds = pad(torch.tensor(lengths).cumsum(0), (1, 0)).to(torch.int32)
    return Segments(bounds.to(entering[0].device), max(lengths))
