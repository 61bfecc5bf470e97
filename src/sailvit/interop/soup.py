"""Model soups: the mean of checkpoints of one architecture that lie near each other.

Averaging homogeneous checkpoints helps, and averaging heterogeneous ones can destroy the model
(SAIL-VL2, arXiv 2509.14033): so how far they are apart is measured first, and what is far apart
is refused. Weights are read and written tensor by tensor.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from sailvit.checkpoint.streaming import Piece
from sailvit.core.errors import ModelError
from sailvit.core.recipe import PARTS
from sailvit.interop.new_folder import new_folder
from sailvit.interop.reading.files import read_optional
from sailvit.interop.reading.stored import Names, read_names
from sailvit.interop.weights import write_weights

APART = 0.5
"""Largest distance of two checkpoints, relative to their norms, that is averaged. Independent
ones of equal norm are 1.4 apart; fine-tuned ones of one base a few hundredths. The limit
between them is ours."""
_NOT_COMPARED = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures")
"""Settings of a config that say nothing about what weights mean."""


@dataclass(frozen=True)
class Soup:
    """What was averaged."""

    parts: tuple[str, ...]
    """Folders that were averaged, from the given ones on: a part each, or `.` for a folder that
    is one part."""
    distances: Mapping[tuple[int, int], float]
    """Distance of every two, by their places: of all matrices together, relative to the root of
    the product of their norms."""


def make_soup(folders: Sequence[Path], out: Path, *, limit: float = APART) -> Soup:
    """Write the mean of the weights in the folders to the new folder `out`; all other files are
    those of the first.

    Each folder is one model of transformers (a tower), or holds `tower/`, `connector/` and
    `language/`.

    Raises:
        ModelError: they differ in architecture or shapes, or lie too far apart.
        RunError: `out` is there already and holds something.
    """
    if len(folders) < 2:
        raise ModelError("a soup needs two folders or more; name another checkpoint")
    parts = _parts(folders)
    distances: dict[tuple[int, int], float] = {}
    for part in parts:
        held = [read_names(folder / part) for folder in folders]
        _refuse_others(folders, part, held)
        for pair in combinations(range(len(folders)), 2):
            apart = _distance(held[pair[0]], held[pair[1]])
            _refuse_far(folders, part, pair, apart, limit)
            distances[pair] = max(apart, distances.get(pair, 0.0))
    with new_folder(out) as draft:
        for part in parts:
            _write([folder / part for folder in folders], draft / part)
        _copy_plain(folders[0], draft)
    return Soup(tuple(parts), distances)


def _parts(folders: Sequence[Path]) -> list[str]:
    """Folders inside each that are averaged; `.` where each is one itself."""
    kinds: list[list[str]] = []
    for folder in folders:
        inside: list[str] = [part for part in PARTS if (folder / part / "config.json").is_file()]
        if not inside and not (folder / "config.json").is_file():
            raise ModelError(
                f"{folder} has no config.json and no parts; expected a model as transformers saves it,"
                " such as runs/mine/stages/01-fine/tower, or a folder with tower/, connector/ and"
                " language/"
            )
        kinds.append(inside or ["."])
    if any(kind != kinds[0] for kind in kinds):
        told = "; ".join(
            f"{folder}: {', '.join(kind)}" for folder, kind in zip(folders, kinds, strict=True)
        )
        raise ModelError(f"the folders hold different parts ({told}); name folders with equal ones")
    return kinds[0]


def _refuse_others(folders: Sequence[Path], part: str, held: Sequence[Names]) -> None:
    """Refuse checkpoints of other architectures, or with other tensors or shapes."""
    first, config = held[0], _config(folders[0] / part)
    for folder, names in zip(folders[1:], held[1:], strict=True):
        where = f"{folder / part} and {folders[0] / part}"
        other = _config(folder / part)
        if differ := sorted(k for k in config | other if config.get(k) != other.get(k)):
            key = "model_type" if "model_type" in differ else differ[0]
            raise ModelError(
                f"{where} are of different architectures: {key} is {other.get(key)!r} and"
                f" {config.get(key)!r}; average checkpoints of one model"
            )
        if lacking := sorted(first.keys() ^ names.keys()):
            raise ModelError(
                f"{where} hold different tensors: only one has {lacking[0]}"
                f" ({len(lacking)} in all); average checkpoints of one model"
            )
        if other_shape := [name for name in first if first[name].shape != names[name].shape]:
            name = other_shape[0]
            raise ModelError(
                f"{where} have different shapes: {name} is {list(names[name].shape)} and"
                f" {list(first[name].shape)}; average checkpoints of one model"
            )


def _config(folder: Path) -> dict[str, Any]:
    config = read_optional(folder / "config.json")
    return {key: value for key, value in config.items() if key not in _NOT_COMPARED}


def _distance(one: Names, other: Names) -> float:
    """Distance of two checkpoints over all matrices, relative to their norms."""
    apart = ours = theirs = 0.0
    for name, stored in one.items():
        # Norms are near 1 in every model and would hide how far matrices are apart.
        if len(stored.shape) < 2 or not stored.dtype.is_floating_point:
            continue
        a, b = stored.read().double(), other[name].read().double()
        apart += float((a - b).square().sum())
        ours += float(a.square().sum())
        theirs += float(b.square().sum())
    scale = math.sqrt(math.sqrt(ours) * math.sqrt(theirs))
    return math.sqrt(apart) / scale if scale else 0.0


def _refuse_far(
    folders: Sequence[Path], part: str, pair: tuple[int, int], apart: float, limit: float
) -> None:
    if apart > limit:
        one, other = (folders[place] / part for place in pair)
        raise ModelError(
            f"{one} and {other} lie {apart:.2g} of their norm apart, and {limit:g} is the most that is"
            " averaged: between such weights lies no model, as a rule. Average checkpoints that were"
            " trained from one base, or raise --limit if you have evaluated it"
        )


def _write(sources: Sequence[Path], target: Path) -> None:
    """Write the mean of one part, and copy what else lies beside the first one's weights."""
    held = [read_names(source) for source in sources]
    target.mkdir(parents=True, exist_ok=True)
    write_weights(target, [_piece(name, held) for name in held[0]])
    _copy_plain(sources[0], target)


def _piece(name: str, held: Sequence[Names]) -> Piece:
    """The mean of one tensor, in the first one's type; whole numbers are the first one's."""
    first = held[0][name]
    if not first.dtype.is_floating_point:
        return first.as_piece(name)

    def mean(tensor: torch.Tensor) -> torch.Tensor:
        """The mean of `tensor` and of its namesakes in the other checkpoints."""
        # In float64, so that the mean of equal weights is these weights.
        total = tensor.double()
        for names in held[1:]:
            total += names[name].read().double()
        return (total / len(held)).to(first.dtype)

    return first.as_piece(name, mean)


def _copy_plain(source: Path, target: Path) -> None:
    """Copy the files beside the weights that are not there yet, such as configs and tokenizers."""
    for path in sorted(source.iterdir()):
        # The same weights in other formats are the first checkpoint's and no mean.
        weights = path.suffix in _WEIGHTS or path.name.endswith(".index.json")
        if path.is_file() and not weights and not (target / path.name).exists():
            shutil.copyfile(path, target / path.name)


_WEIGHTS = frozenset(
    (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".npz")
)
"""How names of files with weights end."""
