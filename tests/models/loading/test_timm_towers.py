"""Towers of timm's library, through transformers' wrapper: where timm can be imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_models import mllm
from transformers import AutoModel, TimmWrapperConfig

from sailvit.core.errors import ModelError
from sailvit.models.blocks import find_blocks
from sailvit.models.loading.folders import prove_tower
from sailvit.models.loading.parts import load_tower
from sailvit.models.measures.flops import flops_model
from sailvit.models.towers.preprocessing import save_preprocessor
from tiny_parts import PATCH, SIDE, picture
from tiny_sources import asked

pytest.importorskip("timm", exc_type=ImportError)
TINY = {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": SIDE, "patch_size": PATCH}
VITS = {
    "vit_tiny_patch16_224": 1,
    "vit_base_patch14_reg4_dinov2": 5,
    "deit_tiny_distilled_patch16_224": 2,
    "eva02_tiny_patch14_224": 1,
    "vit_pe_core_base_patch16_224": 1,
}
"""Architectures, and their tokens before the patches."""


def saved(architecture: str, folder: Path, **settings: object) -> Path:
    """A folder as timm's releases are: the preprocessing stands in config.json."""
    torch.manual_seed(0)
    model = AutoModel.from_config(
        TimmWrapperConfig(architecture=architecture, model_args={**TINY, **settings})
    )
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] = {
        "input_size": [3, SIDE, SIDE],
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.25],
        "crop_pct": 0.9,
        "interpolation": "bicubic",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("architecture", VITS)
def test_a_vit_of_timm_is_a_tower(architecture: str, tmp_path: Path):
    folder = saved(architecture, tmp_path / "timm")
    tower, preprocessor = load_tower(asked(folder))
    tower.eval()
    assert (tower.prefix, tower.patch, tower.patches) == (VITS[architecture], PATCH, 16)
    assert tower.preprocessing.mean == (0.5, 0.4, 0.3)
    assert len(find_blocks(tower.model)[1]) == 2
    tower.model.save_pretrained(tmp_path / "saved")
    save_preprocessor(preprocessor, tower, tmp_path / "saved")
    prove_tower(tower, tmp_path / "saved")
    tiles = torch.from_numpy(picture(1)).permute(2, 0, 1)[None]
    again = load_tower(asked(tmp_path / "saved"))[0].eval()
    assert torch.equal(again(tiles), tower(tiles))


@pytest.mark.parametrize("architecture", VITS)
def test_attention_of_timms_counts(architecture: str, tmp_path: Path):
    model = mllm()
    model.tower = load_tower(asked(saved(architecture, tmp_path / "timm")))[0]
    # 2 blocks of 4 heads, 8 wide: 4 FLOPs per pair of tokens and number of a head.
    assert flops_model(model).tower.forward.per_square == 2 * 4 * 4 * 8


def test_a_convolutional_model_of_timm_is_refused(tmp_path: Path):
    torch.manual_seed(0)
    AutoModel.from_config(TimmWrapperConfig(architecture="resnet18")).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"] = {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="patch"):
        load_tower(asked(tmp_path))
