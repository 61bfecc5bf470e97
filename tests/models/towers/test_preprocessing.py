"""Preprocessor configs: honoured or refused, and exported as what was trained, for each family."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoImageProcessor,
    AutoModel,
    BeitConfig,
    DeiTConfig,
    DINOv3ViTConfig,
    PretrainedConfig,
)

from sailvit.core.errors import ModelError
from sailvit.core.layout import VisualLayout
from sailvit.core.recipe import ImageConfig
from sailvit.data.processing.images import tile_image
from sailvit.models.loading.build import ModelBundle, build
from sailvit.models.loading.folders import save_part
from sailvit.models.towers.preprocessing import read_preprocessing
from tiny_parts import PATCH, SIDE, TOWERS, Parts, save_tower

VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": SIDE,
    "patch_size": PATCH,
}
COLOURS = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.25]}
SQUARE = {"size": {"height": SIDE, "width": SIDE}}
CROP = {
    "size": {"shortest_edge": SIDE + 4},
    "do_center_crop": True,
    "crop_size": {"height": SIDE, "width": SIDE},
}
FAMILIES: dict[str, tuple[PretrainedConfig, dict]] = {
    "aimv2": (TOWERS["aimv2"], {"image_processor_type": "CLIPImageProcessor", **CROP}),
    "siglip": (TOWERS["siglip"], {"image_processor_type": "SiglipImageProcessor", "resample": 2}),
    "siglip2": (
        TOWERS["siglip2"],
        {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8, "max_num_patches": 16},
    ),
    "clip": (TOWERS["clip"], {"image_processor_type": "CLIPImageProcessor", **CROP}),
    "dinov2": (TOWERS["dinov2"], {"image_processor_type": "BitImageProcessor", **CROP}),
    "registers": (TOWERS["registers"], {"image_processor_type": "BitImageProcessor", **CROP}),
    "dinov3": (
        DINOv3ViTConfig(**VISION, num_register_tokens=2),
        {"image_processor_type": "DINOv3ViTImageProcessorFast"},
    ),
    "internvl": (TOWERS["internvl"], {"image_processor_type": "CLIPImageProcessor", **CROP}),
    "vit": (TOWERS["vit"], {"feature_extractor_type": "ViTFeatureExtractor", "size": SIDE}),
    "deit": (DeiTConfig(**VISION), {"image_processor_type": "DeiTImageProcessor", **CROP}),
    "beit": (
        BeitConfig(**VISION, use_absolute_position_embeddings=True),
        {"image_processor_type": "BeitImageProcessor"},
    ),
    "keeps_shape": (
        TOWERS["siglip"],
        {
            "image_processor_type": "PixtralImageProcessor",
            "size": {"longest_edge": SIDE},
            "patch_size": 8,
        },
    ),
    "keeps_ratio": (
        TOWERS["vit"],
        {
            "image_processor_type": "DPTImageProcessor",
            "keep_aspect_ratio": True,
            "ensure_multiple_of": 8,
        },
    ),
    "pads": (TOWERS["siglip"], {"image_processor_type": "JanusImageProcessor", "min_size": 14}),
    "pads_below": (TOWERS["clip"], {"image_processor_type": "Owlv2ImageProcessor"}),
    "cuts": (
        TOWERS["internvl"],
        {"image_processor_type": "GotOcr2ImageProcessor", "crop_to_patches": True},
    ),
    "unnamed": (TOWERS["internvl"], {}),
    "unknown": (TOWERS["siglip"], {"image_processor_type": "MyOwnImageProcessor"}),
}


def saved(parts: Parts, name: str, folder: Path, image: ImageConfig, **more: object) -> ModelBundle:
    """The family's tower, built and saved again in `folder/out`."""
    config, preprocessor = FAMILIES[name]
    sized = {} if "max_num_patches" in preprocessor else SQUARE
    save_tower(config, folder / "tower", {**sized, **COLOURS, **preprocessor, **more})
    recipe = parts.config(image=image).model_copy(update={"tower": str(folder / "tower")})
    bundle = build(recipe, 0)
    save_part(bundle, "tower", folder / "out")
    return bundle


def picture(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 3 + k) + np.cos(y / (4 + k)) for k in range(3)]
    return ((np.stack(waves, -1) + 2) * 63).astype(np.uint8)


@torch.no_grad()
def road(folder: Path, image: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels and features as a user gets them: the folder's own processor, and `AutoModel`."""
    given = AutoImageProcessor.from_pretrained(folder)(image, return_tensors="pt")
    model = AutoModel.from_pretrained(folder).eval()
    return given["pixel_values"], model(**given).last_hidden_state


@pytest.mark.parametrize("side", [SIDE, 48])
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_what_is_exported_is_what_was_trained(parts: Parts, tmp_path: Path, name: str, side: int):
    if name == "aimv2" and side != SIDE:
        pytest.skip("refused: its position table is for one size")
    bundle = saved(parts, name, tmp_path, ImageConfig(size=None if side == SIDE else side))
    tower = bundle.mllm.tower.eval()
    noise = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    tile = torch.from_numpy(noise).permute(2, 0, 1)[None]
    pixels, features = road(tmp_path / "out", noise)
    torch.testing.assert_close(pixels, tower.inputs(tile)["pixel_values"], rtol=0, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(features[:, tower.prefix :], tower(tile), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"siglip2"}))
def test_a_picture_of_another_shape_is_squeezed_and_not_cropped(
    parts: Parts, tmp_path: Path, name: str
):
    """Within the two grey levels by which bicubic filters differ."""
    tower = saved(parts, name, tmp_path, ImageConfig()).mllm.tower
    image = picture(70, 50)
    pixels, _ = road(tmp_path / "out", image)
    tile = tile_image(image, VisualLayout(SIDE, 1, 0, ""))
    levels = abs(pixels - tower.inputs(tile)["pixel_values"]) * tower.std
    assert levels.max() <= 2.01


def test_every_setting_is_written_out(parts: Parts, tmp_path: Path):
    saved(parts, "clip", tmp_path, ImageConfig(), resample=2)
    written = json.loads((tmp_path / "out/preprocessor_config.json").read_text())
    assert "crop_size" not in written
    assert written == {
        **COLOURS,
        **SQUARE,
        "image_processor_type": "CLIPImageProcessor",
        "do_center_crop": False,
        "do_resize": True,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "do_convert_rgb": True,
    }


@pytest.mark.parametrize(
    ("settings", "black", "white"),
    [
        ({}, (0 - 0.5) / 0.2, (1 - 0.5) / 0.2),
        ({"do_normalize": False}, 0.0, 1.0),
        ({"do_normalize": False, "image_mean": None, "image_std": None}, 0.0, 1.0),
        ({"rescale_factor": 1 / 127.5}, (0 - 0.5) / 0.2, (2 - 0.5) / 0.2),
        ({"do_rescale": False, "image_mean": [127.5] * 3}, -127.5 / 0.2, 127.5 / 0.2),
        ({"do_rescale": False, "do_normalize": False}, 0.0, 255.0),
        ({"image_mean": 0.5, "image_std": 0.5}, -1.0, 1.0),
    ],
)
def test_normalisation_is_done_as_the_config_says(
    parts: Parts, tmp_path: Path, settings: dict, black: float, white: float
):
    tower = saved(parts, "siglip", tmp_path, ImageConfig(), **settings).mllm.tower
    ends = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 3, SIDE, SIDE)
    seen = tower.normalised(ends)[:, 0, 0, 0].tolist()
    assert seen == pytest.approx([black, white], rel=1e-5, abs=1e-6)
    pixels, _ = road(tmp_path / "out", np.full((SIDE, SIDE, 3), 255, np.uint8))
    assert float(pixels[0, 0, 0, 0]) == pytest.approx(white, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"size": {"height": 32, "width": 48}},
            r"asks for 32 x 48 px; tiles are square: set model",
        ),
        ({"size": [32, 48]}, "asks for 32 x 48 px"),
        ({**CROP, "crop_size": {"height": 32, "width": 24}}, "asks for 32 x 24 px"),
        ({"do_flip_channel_order": True}, "sets do_flip_channel_order"),
        ({"rescale_offset": True}, "sets rescale_offset"),
        ({"rescale_factor": 0}, "gives rescale_factor 0; expected a number above 0"),
        ({"image_mean": [0.5]}, "expected three numbers each"),
        ({"image_std": [0.5, 0, 0.5]}, "none of std 0"),
    ],
)
def test_what_cannot_be_honoured_is_refused(settings: dict, message: str):
    with pytest.raises(ModelError, match=message):
        read_preprocessing({**SQUARE, **COLOURS, **settings}, "tower")


def test_a_size_in_the_recipe_settles_a_config_that_is_not_square(parts: Parts, tmp_path: Path):
    size = {"height": 32, "width": 48}
    tower = saved(parts, "siglip", tmp_path, ImageConfig(size=32), size=size).mllm.tower
    assert tower.preprocessing.size == 32


def test_colours_in_the_recipe_count_where_the_config_does_not_normalise(
    parts: Parts, tmp_path: Path
):
    image = ImageConfig(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    tower = saved(parts, "siglip", tmp_path, image, do_normalize=False).mllm.tower
    assert (tower.preprocessing.mean, tower.preprocessing.std) == (image.mean, image.std)


def test_a_folder_whose_processor_cannot_be_right_is_not_published(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bundle = parts.build()
    monkeypatch.setattr(
        "sailvit.models.towers.preprocessing._difference", lambda *given: "pixels differ by 1"
    )
    with pytest.raises(ModelError, match=r"trained on: pixels differ by 1.*is not published"):
        save_part(bundle, "tower", tmp_path / "tower")
    assert not (tmp_path / "tower").exists()
