"""`sailvit.load_tower`: images to patch features, with the tower's own preprocessing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sailvit.api.models import find_model, find_stage
from sailvit.core.errors import DataError, RunError
from sailvit.core.layout import VisualLayout
from sailvit.core.recipe import ModelConfig
from sailvit.core.run import RunFolder
from sailvit.data.processing.decoding import Pixels
from sailvit.data.processing.given import as_image
from sailvit.data.processing.images import load_image, tile_image
from sailvit.distributed.processes import chosen_device
from sailvit.models.loading.parts import load_tower as build_tower
from sailvit.models.loading.quiet import quietly
from sailvit.models.towers.tower import Tower


class ImageTower:
    """A vision tower that takes images; each becomes one square tile, as in training."""

    def __init__(self, tower: Tower) -> None:
        self.tower = tower
        # Token count and placeholder are for texts, and none is made here.
        self._layout = VisualLayout(tower.preprocessing.size, tower.patches, 0, "", max_tiles=1)

    @property
    def size(self) -> int:
        """Height and width, in pixels, that images are resized to."""
        return self.tower.preprocessing.size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; features go row by row."""
        return self.tower.side, self.tower.side

    @property
    def width(self) -> int:
        """D: numbers per patch in the features."""
        return self.tower.width

    @property
    def model(self) -> Any:
        """The Hugging Face model of the tower."""
        return self.tower.model

    @torch.no_grad()
    def __call__(self, images: Any, *, batch: int = 32) -> torch.Tensor:
        """Patch features float[I, P, D] of I images, P = rows x columns patches row by row.

        Args:
            images: an image or a list of images: paths, encoded bytes, PIL images, or pixels
                uint8[H, W, 3] or uint8[H, W].
            batch: images per forward pass.
        """
        device = self.tower.mean.device
        given = list(images) if isinstance(images, list | tuple) else [images]
        tiles = [tile_image(_pixels(image), self._layout) for image in given]
        parts = [torch.cat(tiles[at : at + batch]) for at in range(0, len(tiles), batch)]
        made = [self.tower(part.to(device)) for part in parts]
        return torch.cat(made) if made else torch.zeros(0, self.tower.patches, self.width)


def _pixels(given: Any) -> Pixels:
    """The pixels uint8[H, W, 3] of an image that a caller gives."""
    # Here, as a record's image that is missing has other reasons. Not Path.exists, which raises
    # where a name is too long for the file system.
    if isinstance(given, str | Path) and not os.path.exists(given):  # noqa: PTH110
        raise DataError(f"{given} does not exist; name an image file", kind="missing file")
    return load_image(as_image(given))


def load_tower(
    path_or_id: str | Path,
    *,
    feature_layer: int | Sequence[int] | None = None,
    device: torch.device | str | None = None,
    trust_remote_code: bool = False,
) -> ImageTower:
    """A vision tower: images in, patch features out, with the tower's own preprocessing.

    Args:
        path_or_id: a run folder (its last stage), a stage's folder or a copy of one, a tower's
            folder, or a hub id.
        feature_layer: the hidden state that features are, -1 is the last; or several, side by
            side. None: what the run trained with, or -1 for a tower of no run.
        device: the tower's device; None: the first GPU, else the CPU.
        trust_remote_code: whether the tower may run Python code that lies beside its weights.

    Raises:
        ModelError: the tower cannot be loaded, or is not a ViT.
        RunError: the stage saved no tower, or there is no such device.
    """
    device = chosen_device(device)
    with quietly():
        source, trained = _located(Path(path_or_id))
        if feature_layer is not None:
            layer = feature_layer if isinstance(feature_layer, int) else tuple(feature_layer)
            trained = {"feature_layer": layer}
        config = ModelConfig(
            tower=str(path_or_id) if source is None else str(source),
            language="-",
            trust_remote_code=trust_remote_code,
            **trained,
        )
        tower, _ = build_tower(config)
        tower.eval().to(device)
        return ImageTower(tower)


def _located(path: Path) -> tuple[Path | None, dict[str, Any]]:
    """The folder of a run's or a stage's tower, and its settings of features; None and no
    settings for other towers.
    """
    # A run's tower can be named by runs/mine, runs/mine/stages/01-fine, or .../01-fine/tower.
    inside = path.name == "tower" and path.parent.parent.name == "stages"
    place = path.parent if inside else path
    is_stage = place.parent.name == "stages" and RunFolder(place.parent.parent).recipe.is_file()
    if not (is_stage or RunFolder(place).recipe.is_file()):
        if not (path / "tower" / "config.json").is_file() or (path / "config.json").is_file():
            return None, {}
        # A copy of a stage's folder, as `load_run` takes it.
        saved = find_model(path)
        return saved.parts / "tower", _features(saved.config)
    found = find_stage(place)
    folder = found.parts / "tower"
    if not folder.is_dir():
        raise RunError(
            f"{found.parts} has no tower; expected a stage that ended and saved it: name"
            " another stage's folder"
        )
    return folder, _features(found.recipe.model)


def _features(model: ModelConfig) -> dict[str, Any]:
    """A recipe's settings of features."""
    names = ("feature_layer", "feature_join", "feature_norm")
    return {name: getattr(model, name) for name in names}
