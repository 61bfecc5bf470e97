"""An export goes back into sailvit as three parts that answer alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from exported import loader, written

from sailvit.api.models import load_run
from sailvit.core.recipe import ConnectorConfig, ImageConfig
from sailvit.interop.export.native import NATIVES, write_native
from sailvit.interop.parts import take_parts
from tiny_parts import Parts, picture

CASES: dict[str, dict[str, Any]] = {
    "tiles": {
        "tower": "aimv2",
        "language": "qwen3",
        "image": ImageConfig(max_tiles=4, wrap=("<img>", "</img>"), newline=True),
    },
    "layers": {
        "tower": "clip",
        "connector": ConnectorConfig(kind="norm_merge_mlp"),
        "feature_layer": (1, -1),
        "feature_norm": False,
    },
    "native, behind the norm": {
        "tower": "registers",
        "image": ImageConfig(mode="native", min_patches=8, max_patches=80),
        "feature_layer": (-2, -1),
        "feature_norm": True,
    },
}


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_parts_of_an_export_answer_alike(name: str, parts: Parts, tmp_path: Path):
    load = loader(parts, **CASES[name])
    written(load, "hf", tmp_path / "out")
    taken = take_parts(str(tmp_path / "out"), tmp_path / "parts")
    assert not taken.refused
    assert not taken.left_out
    before, after = load().model, load_run(tmp_path / "parts", device="cpu")
    pieces = [
        {"type": "image", "image": picture(1, 90, 40)},
        {"type": "text", "text": "what is red?"},
        {"type": "image", "image": picture(2)},
        {"type": "text", "text": "and this?"},
    ]
    messages = [{"role": "user", "content": pieces}]
    expected, found = before.processor(messages), after.processor(messages)
    assert found["input_ids"].tolist() == expected["input_ids"].tolist()
    assert torch.equal(found["pixel_values"], expected["pixel_values"])
    tiles = expected["pixel_values"]
    shapes = expected.get("image_grids")
    assert shapes is None or torch.equal(found["image_grids"], shapes)
    grids = None if shapes is None else tuple(map(tuple, shapes.tolist()))
    visual = [model.bundle.mllm.visual(tiles, grids=grids) for model in (before, after)]
    assert torch.equal(*visual)
    answers = [model.generate(**expected, max_new_tokens=6) for model in (before, after)]
    assert torch.equal(*answers)


MLP, SWIGLU = ConnectorConfig(kind="mlp"), ConnectorConfig(kind="swiglu")
WRAP = ("<img>", "</img>")
NATIVE: dict[str, tuple[str, dict[str, Any]]] = {
    "llava, tokens around images": ("llava", {"connector": MLP, "image": ImageConfig(wrap=WRAP)}),
    "llava, a line": ("llava", {"connector": MLP, "image": ImageConfig(newline=True)}),
    "aya_vision, both": (
        "aya_vision",
        {"connector": SWIGLU, "image": ImageConfig(wrap=WRAP, newline=True)},
    ),
    "llava, a ViT of another size": (
        "llava",
        {"tower": "vit", "connector": MLP, "image": ImageConfig(size=64)},
    ),
    "aya_vision, DINOv2": (
        "aya_vision",
        {"tower": "dinov2", "connector": SWIGLU, "feature_norm": False},
    ),
    "internvl, neither": ("internvl", {"tower": "internvl"}),
    "internvl, tokens": ("internvl", {"tower": "internvl", "image": ImageConfig(wrap=WRAP)}),
}


@pytest.mark.parametrize("name", NATIVE)
@torch.no_grad()
def test_prompts_and_towers_of_transformers_layouts_come_back(
    name: str, parts: Parts, tmp_path: Path
):
    """What stands around images is in the chat template, which asks nothing of texts."""
    layout, settings = NATIVE[name]
    trained = loader(parts, **settings)()
    (tmp_path / "out").mkdir()
    write_native(NATIVES[layout], layout, trained, tmp_path / "out")
    back = load_run(tmp_path / "out", device="cpu")
    pieces = [{"type": "image"}, {"type": "text", "text": "what is red?"}]
    for content in (pieces, "<image>what is red?", "see <image> what?"):
        messages = [{"role": "user", "content": content}]
        wanted, found = (each.processor(messages, [picture(1)]) for each in (trained.model, back))
        assert found["input_ids"].tolist() == wanted["input_ids"].tolist()
    tiles = wanted["pixel_values"]
    visual = [model.bundle.mllm.visual(tiles) for model in (trained.model, back)]
    assert torch.equal(*visual)
