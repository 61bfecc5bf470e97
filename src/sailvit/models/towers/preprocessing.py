"""Preprocessor configs: read exactly or refused, and written so that they say what was trained.

Training resizes an image to a square, bicubic, without a crop, and normalises it. A config that
says otherwise about size, crop or filter is written anew for the refined tower, and the
processor that transformers makes of it is compared with the pixels of training.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoImageProcessor

from sailvit.core.errors import ModelError
from sailvit.core.seeding import numpy_generator
from sailvit.models.towers.tower import Preprocessing, Tower

_BICUBIC = 3
"""Pillow's number of the filter that tiles are resized with."""
_REFUSED = ("do_flip_channel_order", "rescale_offset")
"""Settings that change pixels in ways that training does not."""
_PATCHES = "Siglip2ImageProcessor"
"""Gives flattened patches instead of pixels."""
_ROW = "Qwen2VLImageProcessor"
"""Gives flattened patches of all images in one row, in blocks, and the images' grids."""
_PLAIN = ("ViTImageProcessor", _PATCHES, _ROW)
"""Processors that resize, rescale and normalise, and do nothing else."""
_DROPPED = (
    *("crop_size", "processor_class", "auto_map", "do_pad", "pad_size"),
    *("min_pixels", "max_pixels"),
)
"""Settings that are not true of tiles, or that others say better."""
_TOLERANCE = 1e-4
"""Largest difference of normalised pixels: rounding of fp32."""
_LEVELS = 2.01
"""Largest difference of resized pixels, in grey levels: some libraries also round
between columns and rows."""


def read_preprocessing(
    preprocessor: dict[str, Any], tower: str, own_size: int | None = None
) -> Preprocessing:
    """Tile size and normalisation from a preprocessor config in any of the spellings in use.

    `do_rescale`, `rescale_factor` and `do_normalize` are honoured; ModelError for what cannot
    be.

    Args:
        preprocessor: The config.
        tower: Where it is from, for messages.
        own_size: Side of the tower's own tile, in pixels, for configs that give only bounds of
            an image's edges; None where its config tells none.
    """
    if refused := [name for name in _REFUSED if preprocessor.get(name)]:
        raise ModelError(
            f"the preprocessor config of {tower!r} sets {refused[0]}, which tiles cannot be given;"
            " choose a tower of RGB pixels in 0..1, or remove the setting if it is a mistake"
        )
    size = _square(preprocessor, tower) or own_size
    mean, std = _colours(preprocessor)
    if not (isinstance(size, int) and _numbers(mean) and _numbers(std)):
        raise ModelError(
            f"the preprocessor config of {tower!r} gives size {size!r}, image_mean {mean!r}, image_std {std!r};"
            " expected all three; set model.image.size, model.image.mean and model.image.std"
        )
    if len(mean) != 3 or len(std) != 3 or not all(std):
        raise ModelError(
            f"the preprocessor config of {tower!r} gives image_mean {mean!r} and image_std {std!r};"
            " expected three numbers each, none of std 0: set model.image.mean and model.image.std"
        )
    return Preprocessing(size, tuple(mean), tuple(std), _scale(preprocessor, tower))


def _numbers(values: Any) -> bool:
    """Whether it is a list of numbers and not empty; a config file may hold anything."""
    return bool(
        isinstance(values, list | tuple)
        and values
        and all(isinstance(value, int | float) for value in values)
    )


def _colours(preprocessor: dict[str, Any]) -> tuple[Any, Any]:
    """Mean and std as the config gives them; 0 and 1, which change nothing, where it does not
    normalise.
    """
    if preprocessor.get("do_normalize") is False:
        return (0.0,) * 3, (1.0,) * 3
    found = (preprocessor.get("image_mean"), preprocessor.get("image_std"))
    mean, std = ([value] * 3 if isinstance(value, int | float) else value for value in found)
    return mean, std


def trained_preprocessor(
    preprocessor: dict[str, Any], tower: Tower, processor_type: str | None = None
) -> dict[str, Any]:
    """The preprocessor config that describes how the tower's tiles were made, every setting
    written out.
    """
    said = tower.preprocessing
    kept = {name: value for name, value in preprocessor.items() if name not in _DROPPED}
    if processor_type is not None:
        kept = {"image_processor_type": processor_type}
    return {
        **kept,
        **_sides(kept, tower, processor_type),
        "do_resize": True,
        "resample": _BICUBIC,
        "do_rescale": said.scale != 1,
        "rescale_factor": 1 / said.scale,
        "do_normalize": True,
        "image_mean": list(said.mean),
        "image_std": list(said.std),
        "do_convert_rgb": True,
    }


def _sides(kept: dict[str, Any], tower: Tower, processor_type: str | None) -> dict[str, Any]:
    """The settings of the size; what `kept` has instead of them is taken out."""
    size = tower.preprocessing.size
    # Processors for native resolution know a number of patches, and no size.
    if "max_num_patches" in kept or processor_type == _PATCHES:
        kept.pop("size", None)
        return {"patch_size": tower.patch, "max_num_patches": tower.patches}
    if "merge_size" in kept or processor_type == _ROW:
        config = tower.model.config
        return {
            "patch_size": tower.patch,
            "merge_size": getattr(config, "spatial_merge_size", 1),
            "temporal_patch_size": getattr(config, "temporal_patch_size", 1),
            # Called edges, and meant as the least and most pixels of an image.
            "size": {"shortest_edge": size**2, "longest_edge": size**2},
        }
    return {"size": {"height": size, "width": size}, "do_center_crop": False}


def save_preprocessor(preprocessor: dict[str, Any], tower: Tower, folder: Path) -> None:
    """Write `preprocessor_config.json` beside a saved tower, proved by loading it as a user would.

    A config whose own processor is unknown, or gives other pixels than those of training (because
    it crops, pads or keeps the shape of a picture), is written for one of transformers' plainest
    processors.

    Raises:
        ModelError: these do not give the pixels of training either.
    """
    _settle_timm(tower.preprocessing, folder / "config.json")
    found = ""
    for processor_type in (None, *_PLAIN):
        written = trained_preprocessor(preprocessor, tower, processor_type)
        text = json.dumps(written, indent=1, default=str) + "\n"
        (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")
        found = _difference(tower, folder)
        if not found:
            return
    raise ModelError(
        f"no image processor of transformers gives the pixels that this tower was trained on: {found};"
        f" {folder} is not published"
    )


def _settle_timm(said: Preprocessing, config: Path) -> None:
    """Say in a timm model's config how tiles were made: its processor reads that file alone."""
    written = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    if not isinstance(written.get("pretrained_cfg"), dict):
        return
    written["pretrained_cfg"] |= {
        "input_size": [3, said.size, said.size],
        "mean": list(said.mean),
        "std": list(said.std),
        "interpolation": "bicubic",
        # Sides are squashed to the square, and nothing is cropped.
        "crop_mode": "squash",
        "crop_pct": 1.0,
    }
    config.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def _difference(tower: Tower, folder: Path) -> str:
    """What is wrong with the folder's own image processor; empty when it gives the tower's
    pixels, of a tile as of a picture that is not square.
    """
    size = tower.preprocessing.size
    # Noise, so that swapped channels or sides do not go unnoticed.
    noise = numpy_generator(0, "preprocessor").integers(0, 256, (size, size, 3), dtype=np.uint8)
    smooth = _smooth(size)
    try:
        processor = AutoImageProcessor.from_pretrained(folder)
        tile, squeezed = (
            processor(picture, return_tensors="pt")["pixel_values"] for picture in (noise, smooth)
        )
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ImportError) as error:
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    expected = _given(tower, noise)
    # Pixels that are not rescaled reach 255, and fp32 rounds those by more.
    limit = torch.tensor(_TOLERANCE * max(1.0, float(expected.abs().max())))
    # Who gives flattened patches keeps the shape of a picture (docs/towers.md).
    if (found := _unlike(tile, expected, limit)) or expected.ndim != 4:
        return found
    found = _unlike(squeezed, _given(tower, smooth), _LEVELS / tower.std.cpu())
    return f"of a picture of {smooth.shape[1]} x {smooth.shape[0]} px {found}" if found else ""


def _smooth(size: int) -> NDArray[np.uint8]:
    """A picture uint8[H, W, 3], twice as wide as high and larger than a tile, whose colours tell
    one place from another, and which filters of one name resize alike.
    """
    y, x = np.linspace(0, np.pi, 3 * size // 2)[:, None], np.linspace(0, 2 * np.pi, 3 * size)
    waves = np.stack([np.cos(x) + np.cos(y), np.sin(x) - np.cos(y), np.cos(x - y) + 0 * y], -1)
    return ((waves + 2) * 63).astype(np.uint8)


def _given(tower: Tower, picture: NDArray[np.uint8]) -> torch.Tensor:
    """What the tower is given of a picture uint8[H, W, 3], squeezed to a tile as in training."""
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    # Antialiased, torch's bicubic filter is Pillow's; of a tile nothing changes.
    sides = (tower.preprocessing.size,) * 2
    made = nn.functional.interpolate(pixels, sides, mode="bicubic", antialias=True)
    tile = made.round().clamp(0, 255).byte()
    return tower.given(tile.to(tower.mean.device)).cpu()


def _unlike(pixels: torch.Tensor, expected: torch.Tensor, limit: torch.Tensor) -> str:
    """How pixels differ from the expected ones; empty within the limit, which may be one for each
    channel.
    """
    if pixels.shape != expected.shape:
        return f"pixels of shape {list(pixels.shape)}, not {list(expected.shape)}"
    off = (pixels.to(expected.dtype) - expected).abs()
    return "" if bool((off <= limit).all()) else f"pixels differ by {float(off.max()):.3g}"


def _scale(preprocessor: dict[str, Any], tower: str) -> float:
    """What pixel bytes are divided by before they are normalised."""
    if preprocessor.get("do_rescale") is False:
        return 1.0
    factor = preprocessor.get("rescale_factor", 1 / 255)
    if not isinstance(factor, int | float) or factor <= 0:
        raise ModelError(
            f"the preprocessor config of {tower!r} gives rescale_factor {factor!r}; expected a"
            " number above 0, most often 0.00392156862745098, which is 1/255"
        )
    # 1/255 is written with few digits in some configs; a whole divisor is what was meant.
    scale = 1 / factor
    return float(round(scale)) if abs(scale - round(scale)) < 1e-4 else scale


def _square(preprocessor: dict[str, Any], tower: str) -> Any:
    """The side of a tile, or whatever the config has instead of a number."""
    size = preprocessor.get("crop_size") if preprocessor.get("do_center_crop") else None
    size = size or preprocessor.get("size")
    if size is None and {"max_num_patches", "patch_size"} <= preprocessor.keys():
        size = round(preprocessor["max_num_patches"] ** 0.5) * preprocessor["patch_size"]
    if isinstance(size, list | tuple) and len(size) == 2:
        size = dict(zip(("height", "width"), size, strict=True))
    if not isinstance(size, dict):
        return size
    # Bounds of an image's edges, no side of a square: `own_size` counts then.
    if "longest_edge" in size:
        return _side(size, preprocessor)
    height = size.get("height", size.get("shortest_edge"))
    width = size.get("width", height)
    if height != width:
        raise ModelError(
            f"the preprocessor config of {tower!r} asks for {height} x {width} px; tiles are square:"
            f" set model.image.size to one side, such as {height}"
        )
    return height


def _side(size: dict[str, Any], preprocessor: dict[str, Any]) -> int | None:
    """The side of a square, where edges are numbers of pixels, and an image has as many of them
    at least as at most, as `_sides` writes it.
    """
    least, most = size.get("shortest_edge"), size["longest_edge"]
    if "merge_size" not in preprocessor or least != most or not isinstance(most, int):
        return None
    return math.isqrt(most)
