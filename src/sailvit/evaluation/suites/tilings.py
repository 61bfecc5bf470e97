"""How many tiles SAIL-VL is given where public scores of it are made."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

from sailvit.core.errors import DataError
from sailvit.core.layout import VisualLayout

Tiling = Literal["recipe", "sail"]
"""`recipe`: as in training; `sail`: a budget per set, and an image alone is cut by two grids."""
TILINGS: tuple[Tiling, ...] = get_args(Tiling)
"""All ways."""

_BUDGET = 10
"""Most tiles of a grid in sets that are not named here."""
_BUDGETS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (12, ("ChartQA_TEST", "MMMU_DEV_VAL", "MMMU_TEST", "MME-RealWorld", "VCR_", "OCRVQA")),
    (18, ("DocVQA_", "DUDE", "MMLongBench_DOC", "SLIDEVQA")),
    (24, ("InfoVQA_", "OCRBench", "HRBench")),
)
"""Most tiles of a grid, with parts of sets' names; VLMEvalKit's class `SailVL` has them."""
_TOGETHER = 64
"""Most tiles of all images of a question with several."""


def read_tiling(name: str) -> Tiling:
    """The way of that name; DataError for another."""
    for known in TILINGS:
        if known == name:
            return known
    raise DataError(f"there is no tiling {name!r}; write {' or '.join(TILINGS)}")


def sail_layout(layout: VisualLayout, name: str, images: int) -> VisualLayout:
    """The layout of a question of the set `name` with so many images.

    One image is cut by two grids of at most the set's budget, and shown whole; several are cut
    once, with at most 64 tiles together, thumbnails not counted.

    Raises:
        DataError: the model takes images in native resolution, without tiles.
    """
    if layout.native is not None:
        raise DataError(
            "this model takes images in native resolution, and SAIL's tilings cut them into tiles;"
            " leave --tiling out"
        )
    found = (tiles for tiles, parts in _BUDGETS if any(part in name for part in parts))
    budget = next(found, _BUDGET)
    if images > 1:
        budget = max(1, min(budget, _TOGETHER // images))
    return replace(layout, max_tiles=budget, thumbnail=True, second_grid=images == 1)


def told_tiles(layout: VisualLayout, tiling: Tiling) -> str:
    """How a model's images are cut, in words."""
    size = f"of {layout.tile_size} px"
    if tiling == "sail":
        return f"SAIL's budget per set, tiles {size}"
    if layout.native is not None:
        return f"native resolution, up to {layout.native.most} visual tokens {size}"
    if layout.max_tiles == 1:
        return f"one tile {size}"
    whole = " and one of the whole" if layout.thumbnail else ""
    return f"up to {layout.max_tiles} tiles {size}{whole}"
