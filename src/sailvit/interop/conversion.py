"""AIMv2 towers between transformers' layout and the original one, which SAILViT's releases use."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from huggingface_hub import save_torch_state_dict, snapshot_download
from safetensors.torch import load_file
from transformers import (
    Aimv2VisionConfig,
    Aimv2VisionModel,
    AutoConfig,
    AutoModel,
    PretrainedConfig,
)

from sailvit.core.atomic import set_usual_mode
from sailvit.core.errors import ModelError
from sailvit.core.run import write_json
from sailvit.interop.new_folder import new_folder
from sailvit.models.guards.checkpoint_files import refuse_damaged, weight_files
from sailvit.models.guards.errors import Loading
from sailvit.models.towers.original_aimv2 import (
    config_for_original,
    is_original,
    original_config,
    read_original,
    to_original,
)

Layout = Literal["transformers", "sailvit"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
_SHARD = "5GB"


@dataclass(frozen=True)
class Conversion:
    """What was converted."""

    found: Layout
    """The layout that the source was in."""
    written: Layout
    """The layout of the new folder."""
    tensors: int
    """Tensors in the new folder."""
    left_out: tuple[str, ...]
    """Tensors of the source that have no place in the new layout; features do not depend on
    them."""


def convert(source: str, out: Path, layout: Layout) -> Conversion:
    """Write the AIMv2 tower of a folder or hub id to the new folder `out` in `layout`.

    Tensors keep their bits and their type. The folder appears when what was written has been
    read back and is equal; `AutoModel` has to load transformers' layout.

    Raises:
        ModelError: the source is no AIMv2 tower, or what was written reads back differently.
        RunError: `out` is there already and holds something, or it cannot be written.
    """
    with new_folder(out) as draft:
        refuse_damaged("tower", source)
        folder = _fetched(source)
        found, config, state = _read(source, folder)
        kept = _write(draft, layout, config, state)
        set_usual_mode(draft)
        for name in ("preprocessor_config.json", "LICENSE"):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, draft / name)
        _prove(draft, layout, kept)
    return Conversion(found, layout, len(kept), tuple(sorted(state.keys() - kept.keys())))


def _fetched(source: str) -> Path:
    """The source's files: a folder, or what a hub id holds of configs and safetensors."""
    if Path(source).is_dir():
        return Path(source)
    with Loading("tower", source):
        kept = ["*.safetensors", "*.json", "LICENSE"]
        return Path(snapshot_download(source, allow_patterns=kept))


def _read(source: str, folder: Path) -> tuple[Layout, Aimv2VisionConfig, dict[str, torch.Tensor]]:
    """A source's layout, transformers' config, and its tensors under transformers' names."""
    with Loading("tower", source):
        given = PretrainedConfig.get_config_dict(folder)[0]
        if is_original(given):
            return "sailvit", original_config(given), read_original(str(folder))
        config = AutoConfig.from_pretrained(folder)
    if not isinstance(config, Aimv2VisionConfig):
        raise ModelError(
            f"{source} is a {config.model_type}; expected an AIMv2 vision tower, in transformers'"
            " layout (aimv2_vision_model) or in the original one (aimv2, sailvit)"
        )
    state: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        state |= load_file(path)
    return "transformers", config, state


def _write(
    draft: Path, layout: Layout, config: Aimv2VisionConfig, state: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Write the files; what of `state` they hold."""
    if layout == "transformers":
        config.architectures = ["Aimv2VisionModel"]
        config.save_pretrained(draft)
        save_torch_state_dict(_separate(state), draft, max_shard_size=_SHARD)
        return state
    if config.mlp_bias or config.qkv_bias:
        raise ModelError(
            "the tower has biases (mlp_bias, qkv_bias), which the original layout of AIMv2 cannot"
            " hold; keep it in transformers' layout"
        )
    write_json(draft / "config.json", config_for_original(config))
    save_torch_state_dict(to_original(state), draft, max_shard_size=_SHARD)
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}


def _separate(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # Thirds of one matrix share its memory, which safetensors takes for tied weights.
    return {name: tensor.clone() for name, tensor in state.items()}


def _prove(draft: Path, layout: Layout, expected: dict[str, torch.Tensor]) -> None:
    """Read the new folder as a user does, and compare every bit."""
    if layout == "transformers":
        # dtype auto: in the file's own type, so that bits can be compared.
        model = AutoModel.from_pretrained(draft, dtype="auto", use_safetensors=True)
        if not isinstance(model, Aimv2VisionModel):
            raise ModelError(f"{draft} loads as a {type(model).__name__}; nothing was published")
        found = model.state_dict()
    else:
        found = read_original(str(draft))
    differing = [
        name
        for name, tensor in expected.items()
        if name not in found or not torch.equal(found[name], tensor)
    ]
    if differing or len(found) != len(expected):
        raise ModelError(
            f"{len(differing)} of {len(expected)} tensors read back differently"
            f" ({', '.join(differing[:3])}); nothing was published"
        )
