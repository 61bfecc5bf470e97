"""Correspondence: warps go both ways, and a tower that knows places or colours is scored as it
should be.
"""

from __future__ import annotations

import numpy as np
import pytest
import skimage
import torch
from labelled_files import write_folders
from PIL import Image
from torch import nn

import sailvit
from sailvit.core.errors import DataError
from sailvit.evaluation.probes.correspondence import (
    ImageSet,
    Warp,
    correspondence,
    patch_centres,
)
from sailvit.evaluation.probes.features.layers import layered
from sailvit.evaluation.probes.sets.class_folder import ImageFolder
from two_processes import in_two


def test_a_view_shows_what_its_warp_says():
    tile = torch.zeros(1, 3, 64, 64)
    tile[:, :, 20:24, 40:44] = 255
    place = torch.tensor([[2 * 42 / 64 - 1, 2 * 22 / 64 - 1]])
    seen = 0
    for position in range(12):
        warp = Warp.drawn(0, position)
        across, down = (warp.in_view(place)[0] + 1) * 32
        view = warp.view(tile.to(torch.uint8))[0, 0].float()
        if 4 < across < 60 and 4 < down < 60:
            seen += 1
            weights = view / view.sum()
            axis = torch.arange(64) + 0.5
            assert float((weights.sum(0) * axis).sum()) == pytest.approx(float(across), abs=0.5)
            assert float((weights.sum(1) * axis).sum()) == pytest.approx(float(down), abs=0.5)
    assert seen >= 6


def test_centres_go_row_by_row():
    assert patch_centres(2).tolist() == [[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]


class Stand(nn.Module):
    """In a tower's place: features are patches' mean colours, or their places."""

    def __init__(self, *, places: bool) -> None:
        super().__init__()
        self.side, self.patches, self.places = 16, 256, places
        self.preprocessing = type("P", (), {"size": 128})
        self.mean = torch.zeros(1)

    def forward(self, tiles):
        if self.places:
            angles = patch_centres(16) * 1.5
            return torch.cat([angles.sin(), angles.cos()], -1).expand(len(tiles), -1, -1)
        cells = nn.functional.avg_pool2d(tiles.float(), 8)
        return (cells - cells.mean((2, 3), keepdim=True)).flatten(2).transpose(1, 2)


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("astronaut", "chelsea", "coffee"):
        pixels = getattr(skimage.data, name)()
        Image.fromarray(pixels).resize((160, 120)).save(folder / f"{name}.png")
    return folder


def found(tower, folder, layers=(1,)):
    return correspondence(
        tower,
        ImageSet("photos", ImageFolder(folder)),
        layers,
        batch=2,
        threads=1,
        seed=0,
        seen=lambda done, total: None,
    )


def test_colours_follow_the_warp_and_places_do_not(photographs):
    colours, places = (
        found(Stand(places=places), photographs)[0][0].value for places in (False, True)
    )
    # Within 0.1 of the side are 3 % of the patches, which chance would find.
    assert colours > 9
    assert places == 0


def test_every_layer_has_two_distances_and_damaged_images_are_counted(parts, tmp_path):
    write_folders(tmp_path, ["x"], 4)
    (tmp_path / "x" / "2.png").write_bytes(b"")
    tower = layered(sailvit.load_tower(parts.tower("siglip")).tower, (1, 2))
    outcomes, failed = found(tower, tmp_path, (1, 2))
    assert failed == 1
    assert [(each.layer, each.metric, each.main) for each in outcomes] == [
        (1, "PCK@0.1", True),
        (1, "PCK@0.05", False),
        (2, "PCK@0.1", True),
        (2, "PCK@0.05", False),
    ]
    assert all(each.count == 3 and each.hits.max() <= each.possible.max() for each in outcomes)


def test_processes_share_the_images(parts, tmp_path):
    write_folders(tmp_path / "set", ["x"], 5)
    source = parts.tower("siglip")

    def work(index):
        tower = layered(sailvit.load_tower(source).tower, (2,))
        made = found(tower, tmp_path / "set")[0]
        np.save(tmp_path / f"{index}.npy", made[0].hits)

    assert in_two(tmp_path, work) == ["done", "done"]
    alone = found(layered(sailvit.load_tower(source).tower, (2,)), tmp_path / "set")[0]
    for index in range(2):
        assert np.array_equal(np.load(tmp_path / f"{index}.npy"), alone[0].hits)


def test_no_image_is_refused(parts, tmp_path):
    tower = layered(sailvit.load_tower(parts.tower("siglip")).tower, (2,))
    with pytest.raises(DataError, match="no image of photos"):
        found(tower, tmp_path)
