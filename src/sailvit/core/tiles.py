"""Tiles and the pictures that they make up."""

from __future__ import annotations

import torch


def joined(tiles: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Whole pictures uint8[M, C, H, W] of their tiles uint8[I, C, H, W], row by row in a grid of
    rows and columns.
    """
    rows, columns = grid
    channels, height, width = tiles.shape[1:]
    cells = tiles.reshape(-1, rows, columns, channels, height, width)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, rows * height, columns * width)


def cut(pictures: torch.Tensor, tile: int) -> torch.Tensor:
    """Tiles uint8[I, C, H, W] of `tile` px, row by row, of pictures uint8[M, C, H, W]."""
    channels, height, width = pictures.shape[1:]
    cells = pictures.reshape(-1, channels, height // tile, tile, width // tile, tile)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, tile, tile)
