"""Which cells a study has, counted by hand."""

from collections import Counter

from sailvit.core.study.cells import cells_of, shard_of
from tiny_studies import study


def test_one_factor_has_every_level_once_around_the_defaults():
    cells = cells_of(study())
    # base and gradual in four seeds, joint in three; then base and gradual at two other levels of
    # data and at one of tower, in three seeds.
    assert len(cells) == 2 * 4 + 3 + 2 * (2 + 1) * 3
    names = Counter(cell.name for cell in cells)
    assert names["base,data=half,seed=2"] == 1
    assert max(names.values()) == 1
    assert not any("joint,data" in name or "tower=frozen,data" in name for name in names)


def test_further_levels_of_the_contrast_run_everywhere():
    contrast = {"factor": "arm", "base": "base", "refined": "gradual", "across": ["joint"]}
    assert len(cells_of(study(contrast=contrast))) == 3 * 3 + 3 * 3 * 3


def test_a_grid_has_all_combinations():
    contrast = {"factor": "arm", "base": "base", "refined": "gradual"}
    cells = cells_of(study(design="grid", contrast=contrast))
    assert len(cells) == 3 * 3 * 2 * 3
    assert len({(cell.levels, cell.seed) for cell in cells}) == len(cells)
    assert "joint,data=double,tower=frozen,seed=1" in {cell.name for cell in cells}


def test_every_comparison_comes_once_before_any_comes_twice():
    seeds = [cell.seed for cell in cells_of(study())]
    assert seeds == sorted(seeds)


def test_shards_part_the_cells():
    cells = cells_of(study())
    shards = [shard_of(cells, index, 4) for index in range(4)]
    assert sorted(cell.name for shard in shards for cell in shard) == sorted(c.name for c in cells)
    assert {len(shard) for shard in shards} <= {7, 8}
