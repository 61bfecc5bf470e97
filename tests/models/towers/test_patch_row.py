"""Towers that take patches in a row: which patch each place of the row is, and each token."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from test_native import ROWS, TILE, made, noise
from transformers import AutoModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.vision_utils import get_vision_window_index

from sailvit.core.errors import ModelError
from sailvit.models.towers.families import Family
from sailvit.models.towers.layers import FeatureChoice
from sailvit.models.towers.native_proof import prove_native, row_reader
from sailvit.models.towers.patch_row import PatchRow
from sailvit.models.towers.preprocessing import read_preprocessing, trained_preprocessor
from sailvit.models.towers.proof import prove_tiles
from sailvit.models.towers.tower import Preprocessing, Tower
from tiny_parts import PATCH, SIDE
from tiny_sources import vision_config

COLOURS = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))


def windowed(side: int = 2 * SIDE, **choice: Any) -> Tower:
    """A Qwen2.5-VL tower of 8 x 8 patches whose first block sees windows of 4 x 4."""
    config = vision_config("qwen2_5_vl_vision")
    config.window_size = 4 * PATCH
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    return Tower(model, Preprocessing(side, *COLOURS), FeatureChoice(**choice)).eval()


def test_patches_are_what_the_familys_own_image_processor_gives():
    tower, pictures = windowed(), noise(2, 6 * PATCH, 4 * PATCH)
    area = pictures[0, 0].numel()
    processor = Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        size={"shortest_edge": area, "longest_edge": area},
        image_mean=list(COLOURS[0]),
        image_std=list(COLOURS[1]),
    )
    expected = processor(list(pictures), return_tensors="pt")
    found = tower.inputs(pictures)
    assert torch.equal(found["grid_thw"], expected["image_grid_thw"])
    torch.testing.assert_close(found["hidden_states"], expected["pixel_values"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("window", [16, 24, 32, 48, 112])
def test_tokens_leave_in_the_order_of_the_familys_windows(window: int):
    rows, columns = 10, 6
    index, _ = get_vision_window_index(
        torch.tensor([[1, rows, columns]]), 2, window_size=window, patch_size=PATCH
    )
    blocks = PatchRow("", 2, 2, None).order(rows, columns, PATCH).reshape(-1, 4)
    found = PatchRow("", 2, 2, window // 2).order(rows, columns, PATCH)
    assert torch.equal(found, blocks[index].flatten())


@pytest.mark.parametrize("size", [(8, 8), (6, 12)])
@torch.no_grad()
def test_the_towers_tokens_through_the_models_own_merger_are_what_it_merges(size: tuple[int, int]):
    tower, (rows, columns) = windowed(), size
    pictures = noise(2, rows * PATCH, columns * PATCH)
    cells = tower.patch_features(pictures).reshape(2, rows // 2, 2, columns // 2, 2, -1)
    merged = tower.model.merger(cells.transpose(2, 3).reshape(2 * rows * columns, -1))
    expected = tower.model(**tower.inputs(pictures)).pooler_output
    torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_every_patch_of_a_wide_picture_moves_its_own_token_most():
    tower, rows, columns = windowed(), 6, 10
    picture = noise(1, rows * PATCH, columns * PATCH)
    plain, changed = tower.patch_features(picture), []
    for place in range(rows * columns):
        row, column = place // columns * PATCH, place % columns * PATCH
        other = picture.clone()
        other[:, :, row : row + PATCH, column : column + PATCH] ^= 255
        changed.append((tower.patch_features(other) - plain).norm(dim=-1)[0])
    moved = torch.stack(changed)
    found = (moved / moved.mean(dim=0, keepdim=True)).argmax(dim=1)
    assert found.tolist() == list(range(rows * columns))


def test_an_order_that_is_wrong_is_refused_by_the_proof():
    tower = windowed()
    prove_tiles(tower)
    in_blocks = PatchRow("", 2, 2, None)
    tower.family = dataclasses.replace(tower.family, raster=in_blocks.raster)
    with pytest.raises(ModelError, match="does not give one token per patch, row by row"):
        prove_tiles(tower)


def test_states_of_other_layers_are_in_order_too():
    last, first = windowed(layers=(-1,), norm=False), windowed(layers=(1,))
    pictures = noise(1, 2 * SIDE, 2 * SIDE)
    assert torch.equal(last(pictures), windowed()(pictures))
    prove_tiles(first)
    both = windowed(layers=(1, -1))(pictures)
    torch.testing.assert_close(both, torch.cat([first(pictures), last(pictures)], dim=-1))


def test_grids_that_do_not_divide_into_the_models_blocks_are_refused():
    with pytest.raises(ModelError, match=r"in blocks of 2 x 2, and a picture has 5 x 5; set model"):
        windowed(side=5 * PATCH)
    tower = made("qwen2_vl")
    with pytest.raises(ModelError, match=r"a picture has 2 x 3; .*model\.connector\.merge to 2"):
        prove_native(tower, 1)


@pytest.mark.parametrize("name", ROWS)
def test_what_the_merger_alone_needs_is_never_trained(name: str):
    tower = made(name)
    assert {key.partition(".")[0] for key in tower.idle} <= {"merger", "deepstack_merger_list"}
    tower(noise(2, TILE, TILE), ((1, 2),)).sum().backward()
    given = {key for key, weight in tower.model.named_parameters() if weight.grad is not None}
    assert given == {key for key, _ in tower.model.named_parameters()} - tower.idle


def test_a_family_that_takes_pixels_keeps_the_order_of_its_tokens():
    states = torch.randn(2, 4, 3)
    assert Family().raster(states, torch.empty(2, 3, 16, 16), 8) is states


def test_released_preprocessors_name_no_size_and_saved_ones_do():
    released = {
        "image_processor_type": "Qwen2VLImageProcessor",
        **{"min_pixels": 3136, "max_pixels": 12845056},
        **{"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2},
        **{"image_mean": list(COLOURS[0]), "image_std": list(COLOURS[1])},
    }
    with pytest.raises(ModelError, match=r"gives size None.*set model\.image\.size"):
        read_preprocessing(released, "tower")
    tower = windowed()
    saved = trained_preprocessor(released, tower)
    assert saved["size"] == {"shortest_edge": 64**2, "longest_edge": 64**2}
    assert saved["patch_size"] == PATCH
    assert "min_pixels" not in saved
    assert read_preprocessing(saved, "tower") == tower.preprocessing


def test_in_native_resolution_they_are_called_grid_by_grid():
    tower = made("qwen3_vl")
    before = [block.forward for block in tower.model.blocks]
    assert row_reader(tower, 2) is None
    assert [block.forward for block in tower.model.blocks] == before
