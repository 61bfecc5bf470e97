"""Towers of every source leave by the layouts `tower` and `hf`, or with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from exported import LINEAGE, run_card, written

from sailvit.inference.model import RunModel
from sailvit.interop.export.trained import Trained
from sailvit.models.loading.build import ModelBundle, build
from tiny_parts import Parts
from tiny_sources import ALONE, DUAL, MULTIMODAL, asked, save_source

KINDS = ["beit", "vit_mae", "vitdet", "metaclip_2", "dinov3_vit"]
"""DropPath in training mode; noise that orders patches; a map; a class that AutoModel does not
know; random angles in training mode."""


def bundle_of(family: str, parts: Parts, folder: Path) -> ModelBundle:
    save_source(family, folder)
    return build(asked(folder, language=parts.language("llama")), seed=0)


def left(bundle: ModelBundle, layout: str, out: Path) -> dict[str, float]:
    """The worst differences of an export, pixels aside: libraries resize to other levels."""
    parity = written(lambda: Trained(RunModel(bundle), torch.float32, LINEAGE), layout, out)
    return {what: error for what, error in parity.worst.items() if what != "pixels"}


@pytest.mark.parametrize("family", KINDS)
def test_a_tower_of_each_kind_leaves_by_both_layouts(family: str, parts: Parts, tmp_path: Path):
    bundle = bundle_of(family, parts, tmp_path / "source")
    for layout in ("tower", "hf"):
        assert max(left(bundle, layout, tmp_path / layout).values()) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("family", [f for f in (*ALONE, *DUAL, *MULTIMODAL) if f not in KINDS])
def test_a_tower_of_every_source_leaves_by_both_layouts(family: str, parts: Parts, tmp_path: Path):
    bundle = bundle_of(family, parts, tmp_path / "source")
    assert max(left(bundle, "hf", tmp_path / "hf").values()) < 1e-4
    assert max(left(bundle, "tower", tmp_path / "tower").values()) < 1e-4


@pytest.mark.parametrize("family", ["metaclip_2", "vitdet", "vit_mae"])
def test_the_example_of_a_tower_s_card_runs(family: str, parts: Parts, tmp_path: Path):
    bundle = bundle_of(family, parts, tmp_path / "source")
    left(bundle, "tower", tmp_path / "out")
    tower = bundle.mllm.tower
    assert run_card(tmp_path / "out", tmp_path) == str((1, tower.patches, tower.width))


def test_a_model_that_answers_is_not_in_training_mode(parts: Parts, tmp_path: Path):
    """Dropout and DropPath made every pass of such a tower another one."""
    model = RunModel(bundle_of("beit", parts, tmp_path / "source"))
    tiles = torch.randint(0, 255, (1, 3, 32, 32), dtype=torch.uint8)
    model.generate(None, "what?", max_new_tokens=2)
    assert torch.equal(model.tower(tiles), model.tower(tiles))
