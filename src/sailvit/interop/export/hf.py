"""The `hf` layout: any tower and any language as one folder, with small code of our own."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from sailvit.core.errors import ModelError
from sailvit.core.layout import GridLimits
from sailvit.core.run import write_json
from sailvit.interop.export.card import Card, model_example, write_card
from sailvit.interop.export.cases import Watching
from sailvit.interop.export.chat_template import export_template
from sailvit.interop.export.texts import write_texts
from sailvit.interop.export.trained import (
    Trained,
    dtype_name,
    language_tensors,
    pieces,
    under,
)
from sailvit.interop.weights import write_weights
from sailvit.models.structure.mllm import MLLM
from sailvit.models.towers.families import Pixels, ordered_pixels, patch_pixels, same_order
from sailvit.models.towers.tower import Tower

CODE = (
    "configuration_sailvit.py",
    "image_processing_sailvit.py",
    "modeling_sailvit.py",
    "processing_sailvit.py",
    "tower_sailvit.py",
)
"""Files of the code that goes along."""
_CLASSES = {
    "AutoConfig": "configuration_sailvit.SailvitConfig",
    "AutoModel": "modeling_sailvit.SailvitModel",
    "AutoModelForImageTextToText": "modeling_sailvit.SailvitForConditionalGeneration",
    "AutoModelForCausalLM": "modeling_sailvit.SailvitForConditionalGeneration",
}
_IMAGES = {"AutoImageProcessor": "image_processing_sailvit.SailvitImageProcessor"}
_PROCESSOR = {"AutoProcessor": "processing_sailvit.SailvitProcessor"}
_FACTS = (
    *("kind", "tower_width", "language_width", "hidden", "merge", "activation", "bias", "eps"),
    "column_major",
)
"""What the code needs to know of a connector."""
WATCHING = Watching(
    remote=True,
    modules={"features": "model.vision_tower", "visual": "model.multi_modal_projector"},
)


def write_hf(trained: Trained, folder: Path) -> Watching:
    """Write config, code, processor, tokenizer and weights of the whole model.

    Raises:
        ModelError: a part runs code of its own, or the language is no base model with a head.
    """
    # All reasons at once: each of them costs a new training to mend.
    if found := hf_problems(trained.bundle.mllm):
        told = "".join(f"\n  {problem}" for problem in found)
        raise ModelError(f"the layout hf cannot hold this model:{told}")
    language = language_tensors(trained.language)
    tensors = {
        **under("model.vision_tower", trained.tower),
        **under("model.multi_modal_projector", trained.connector),
        **{
            name if name.startswith("lm_head") else f"model.{name}": t
            for name, t in language.items()
        },
    }
    write_weights(folder, pieces(tensors, trained.dtype))
    write_json(folder / "config.json", whole_config(trained))
    write_rest(trained, folder)
    card = Card(
        "image-text-to-text",
        f"{trained.tower.config.model_type} and {trained.language.config.model_type}",
        model_example(remote=True),
        ("multimodal", "custom_code"),
    )
    write_card(trained, card, folder)
    return WATCHING


def hf_problems(mllm: MLLM) -> list[str]:
    """What keeps the layout from holding a model, a sentence each; empty where nothing is known
    to.
    """
    found = []
    if mllm.native and mllm.tower.family.raster is not same_order:
        found.append(
            "the tower takes patches in a row of its own order, which the layout holds for one size"
            " alone; train with model.image.mode: fixed or tiled"
        )
    for part, model in (("tower", mllm.tower.model), ("language", mllm.language)):
        own = getattr(model.config, "auto_map", None)
        if own or not type(model).__module__.startswith("transformers."):
            found.append(
                f"the {part} is a {type(model).__name__} with code of its own repository, which an"
                " export cannot carry; choose a class of transformers"
            )
    return found


def write_rest(trained: Trained, folder: Path, *more: str) -> None:
    """Write what stands beside config and weights: the code that goes along, with `more` files
    of it, tokenizer, chat template and processor.
    """
    source, bundle = files("sailvit.interop.remote_code"), trained.bundle
    for name in (*CODE, *more):
        (folder / name).write_bytes((source / name).read_bytes())
    write_texts(trained, folder, export_template(bundle.tokenizer, bundle.layout, bundle.day))
    _write_processor(trained, folder)


def code_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of code in an export."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("*.py"))
    }


def whole_config(trained: Trained) -> dict[str, Any]:
    """What config.json holds."""
    mllm, layout = trained.bundle.mllm, trained.bundle.layout
    tower, language = mllm.tower, trained.language
    facts = {name: getattr(trained.connector.config, name) for name in _FACTS}
    # Read off the tensors: configs of checkpoints often say something else.
    tied = language.get_output_embeddings().weight is language.get_input_embeddings().weight
    inputs: dict[Pixels, str] = {patch_pixels: "patches", ordered_pixels: "ordered"}
    size = tower.preprocessing.size
    return {
        "architectures": ["SailvitForConditionalGeneration"],
        "auto_map": _CLASSES,
        "model_type": "sailvit_mllm",
        "dtype": dtype_name(trained.dtype),
        "image_token_id": layout.placeholder_id,
        "tie_word_embeddings": tied,
        "connector": facts,
        "image": {
            "size": size,
            "patch": tower.patch,
            "prefix": tower.prefix,
            "layers": list(tower.choice.layers),
            "join": tower.choice.join,
            "last_normed": tower.choice.norm is not False,
            "norm": tower.norm if tower.choice.norm else None,
            "native": layout.native is not None,
            "table": tower.table,
            "inputs": inputs.get(tower.family.pixels, "pixels"),
            "row": _row(tower),
            "interpolate": tower.asks_to_interpolate,
            "one_by_one": tower.alone,
            "wrap": list(layout.wrap) if layout.wrap else None,
            "newline": layout.newline,
        },
        # The class is named, as AutoModel has no entry for all of them.
        "vision_config": {
            **trained.config_of(trained.tower),
            "architectures": [type(trained.tower).__name__],
        },
        "text_config": {**trained.config_of(language), "tie_word_embeddings": tied},
    }


def _row(tower: Tower) -> dict[str, Any] | None:
    """How a tower takes the patches of a tile in one row, and which of its tokens is each patch's;
    None for towers of pixels.
    """
    if tower.family.raster is same_order:
        return None
    tile = torch.zeros(1, 3, tower.preprocessing.size, tower.preprocessing.size)
    # Each patch is given its own number: where the numbers come out is the order of the tokens.
    numbers = torch.arange(tower.patches, dtype=torch.float32)[:, None]
    taken = tower.family.pixels(tile, tower.patch)["hidden_states"]
    assert taken is not None
    return {
        "merge": int(tower.model.config.spatial_merge_size),
        "frames": taken.shape[1] // (3 * tower.patch**2),
        "tokens": [int(n) for n in tower.family.raster(numbers, tile, tower.patch)[0, :, 0]],
    }


def _limits(tile: int, limits: GridLimits) -> dict[str, int]:
    """How an image processor makes grids in native resolution."""
    return {"tile": tile, "least": limits.least, "most": limits.most}


def _write_processor(trained: Trained, folder: Path) -> None:
    layout, said = trained.bundle.layout, trained.bundle.mllm.tower.preprocessing
    images = {
        "auto_map": {**_IMAGES, **_PROCESSOR},
        "image_processor_type": "SailvitImageProcessor",
        "processor_class": "SailvitProcessor",
        "size": {"height": said.size, "width": said.size},
        "image_mean": list(said.mean),
        "image_std": list(said.std),
        "rescale_divisor": said.scale,
        "max_tiles": layout.max_tiles,
        "use_thumbnail": layout.thumbnail,
        "image_seq_length": layout.tokens_per_tile,
        "native": None if layout.native is None else _limits(layout.tile_size, layout.native),
    }
    write_json(folder / "preprocessor_config.json", images)
    whole = {
        "auto_map": _PROCESSOR,
        "processor_class": "SailvitProcessor",
        "image_token": layout.placeholder,
        "wrap": list(layout.wrap) if layout.wrap else None,
    }
    write_json(folder / "processor_config.json", whole)
