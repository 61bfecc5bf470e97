"""Every source of a tower: each column of the table in docs/towers.md, at tiny random size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import tower_cells
from changed_runs import CLOSE

from tiny_sources import ALONE, DUAL, MULTIMODAL, save_source

QUICK = ("siglip_vision_model", "vit_mae", "metaclip_2", "llava", "qwen2_vl")
"""One of each kind; all others run with the long tests."""
CONVOLVED = ("sam_vision_model", "got_ocr2")
"""A convolution of 3 x 3 patches ends them: a neighbour may move more, and nothing farther."""
SOURCES = [
    pytest.param(family, marks=() if family in QUICK else pytest.mark.slow)
    for family in (*ALONE, *DUAL, *MULTIMODAL)
]


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    save_source(request.node.callspec.params["family"], tmp_path / "source")
    return tmp_path / "source"


@pytest.mark.parametrize("family", SOURCES)
def test_the_token_that_a_patch_moves_most_is_its_own(family: str, folder: Path):
    assert tower_cells.grid(folder) == "16 of 16" or family in CONVOLVED


@pytest.mark.parametrize("family", SOURCES)
def test_three_stages_freeze_train_and_save_the_tower_as_itself(family: str, folder: Path):
    assert tower_cells.stages(folder)[1] == "yes"


@pytest.mark.parametrize(
    "image", [{"mode": "tiled", "max_tiles": 3}, {"mode": "native"}], ids=["tiled", "native"]
)
@pytest.mark.parametrize(
    "family",
    [
        "qwen2_5_vl",
        pytest.param("qwen2_vl", marks=pytest.mark.slow),
        pytest.param("qwen3_vl", marks=pytest.mark.slow),
    ],
)
def test_towers_that_take_rows_of_patches_train_on_tiles_and_in_native_resolution(
    family: str, image: dict, folder: Path
):
    assert tower_cells.stages(folder, **image)[1] == "yes"


@pytest.mark.slow
@pytest.mark.parametrize("column", ["recompute", "compile", "shard"])
@pytest.mark.parametrize("family", SOURCES)
def test_recompute_compile_and_shards_change_nothing(family: str, column: str, folder: Path):
    found = tower_cells.COLUMNS[column](folder)
    assert found in ("equal", "no: runs tile by tile") or float(found) <= CLOSE


def test_the_order_of_tokens_can_be_seen_to_be_wrong(tmp_path: Path, monkeypatch):
    save_source("siglip_vision_model", tmp_path)
    tower = tower_cells.loaded(tmp_path)
    plain = tower.patch_features
    turned = torch.arange(16).reshape(4, 4).T.flatten()
    monkeypatch.setattr(tower, "patch_features", lambda given: plain(given)[:, turned])
    monkeypatch.setattr(tower_cells, "loaded", lambda folder: tower)
    with pytest.raises(AssertionError):
        tower_cells.grid(tmp_path)
