"""Training state as a folder: tensors in safetensors, everything else in JSON, published all or nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from sailvit.core.errors import RunError
from sailvit.core.run import read_json, write_json


def save_state(folder: Path, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
    """Write the state to `folder`; until the new one is complete the previous one stays usable."""
    draft, old = folder.with_name(folder.name + ".part"), folder.with_name(folder.name + ".old")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, draft / "tensors.safetensors")
    write_json(draft / "values.json", values)
    # After a crash between the renames below, `old` is all there is, so it goes only when `folder` is there.
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and values of the last complete save.

    Raises:
        RunError: there is none.
    """
    found = _complete(folder)
    if found is None:
        raise RunError(
            f"{folder} holds no training state to resume from: the run was stopped before its first save;"
            " start it anew, with --overwrite"
        )
    return load_file(found / "tensors.safetensors"), read_json(found / "values.json")


def has_state(folder: Path) -> bool:
    """Whether there is a complete save to resume from."""
    return _complete(folder) is not None


def clear_state(folder: Path) -> None:
    """Remove the state of a run that is complete."""
    for place in (folder, folder.with_name(folder.name + ".old"), folder.with_name(folder.name + ".part")):
        shutil.rmtree(place, ignore_errors=True)


def _complete(folder: Path) -> Path | None:
    places = (folder, folder.with_name(folder.name + ".old"))
    return next((place for place in places if (place / "values.json").exists()), None)
