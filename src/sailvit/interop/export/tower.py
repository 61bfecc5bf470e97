"""The `tower` layout: the vision tower alone, as transformers' own class."""

from __future__ import annotations

from pathlib import Path

from sailvit.core.run import write_json
from sailvit.interop.export.card import Card, tower_example, write_card
from sailvit.interop.export.cases import Watching, takes_patches
from sailvit.interop.export.trained import Trained, pieces
from sailvit.interop.weights import write_weights
from sailvit.models.towers.families import same_order
from sailvit.models.towers.preprocessing import save_preprocessor

_KEEPS_ASPECT = (
    "Training resized images to {size} x {size} pixels, bicubic. This image processor keeps their"
    " aspect ratio: resize images to squares first for the features of training."
)
_OWN_ORDER = (
    " Tokens leave in the order of the model's own blocks and windows; `pooler_output` is what its"
    " merger makes of them, row by row, with weights that were not trained here."
)


def write_tower(trained: Trained, folder: Path) -> Watching:
    """Write config, preprocessor config and weights of the tower."""
    bundle, model = trained.bundle, trained.tower
    config = trained.config_of(model)
    write_json(folder / "config.json", {**config, "architectures": [type(model).__name__]})
    write_weights(folder, pieces(model.state_dict(), trained.dtype))
    save_preprocessor(bundle.preprocessor, bundle.mllm.tower, folder)
    title = f"A {model.config.model_type} vision tower"
    tower = bundle.mllm.tower
    size = bundle.layout.squared.tile_size
    note = _KEEPS_ASPECT.format(size=size) if takes_patches(tower) else ""
    if tower.family.raster is not same_order:
        note += _OWN_ORDER
    example = tower_example(trained)
    card = Card("image-feature-extraction", title, example, ("vision",), note)
    write_card(trained, card, folder)
    return Watching(kind="tower")
