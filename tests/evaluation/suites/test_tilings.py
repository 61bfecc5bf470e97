"""The tiles that SAIL-VL is given, by set and number of images."""

from __future__ import annotations

import pytest

from sailvit.core.errors import DataError
from sailvit.core.layout import GridLimits, VisualLayout
from sailvit.evaluation.suites.tilings import read_tiling, sail_layout

LAYOUT = VisualLayout(448, 256, 0, "", max_tiles=6, thumbnail=False)


@pytest.mark.parametrize(
    ("name", "images", "most", "tiles"),
    [
        ("MMStar", 1, 10, 21),
        ("ChartQA_TEST", 1, 12, 25),
        ("MMMU_DEV_VAL", 4, 12, 13),
        ("MMMU_DEV_VAL", 7, 9, 10),
        ("DocVQA_VAL", 1, 18, 37),
        ("OCRBench", 1, 24, 49),
        ("InfoVQA_VAL", 2, 24, 25),
        ("InfoVQA_VAL", 100, 1, 1),
    ],
)
def test_budgets_follow_the_set_and_the_number_of_images(name, images, most, tiles):
    made = sail_layout(LAYOUT, name, images)
    assert (made.max_tiles, made.most_tiles, made.second_grid) == (most, tiles, images == 1)
    assert (made.tile_size, made.tokens_per_tile) == (448, 256)


def test_models_without_tiles_and_unknown_ways_are_refused():
    native = VisualLayout(14, 1, 0, "", native=GridLimits(1, 9, 3))
    with pytest.raises(DataError, match="native resolution"):
        sail_layout(native, "MMStar", 1)
    with pytest.raises(DataError, match="no tiling 'two'; write recipe or sail"):
        read_tiling("two")
    assert read_tiling("sail") == "sail"
