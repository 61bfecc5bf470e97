"""Rotary embeddings that depend on the longest sample of a call, made for each sample as if it
were alone.

With the rope types `dynamic` and `longrope` transformers takes one set of frequencies for a
whole call, chosen by its last position. A long sample would then change the rotations of the
short ones in its pack or batch, and `dynamic` also remembers the longest sample of earlier
calls. The proof of packing cannot find that, as its samples are short.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from sailvit.core.errors import ModelError

_VARYING = ("dynamic", "longrope")


def separate_rotations(language: nn.Module) -> int | None:
    """Length up to which all samples have the same rotations; None where length never matters.

    From now on each sample gets its own, in any pack or batch that comes with its positions.
    """
    usual = []
    for module in language.modules():
        layers = [layer for layer, kind in _types(module).items() if _varies(kind)]
        usual += [_usual(module, layer) for layer in layers]
        if layers and _each_alone not in module._forward_hooks.values():
            # A plain function, so that copies of the language have it too.
            module.register_forward_hook(_each_alone, with_kwargs=True)
    return min(usual, default=None)


def _types(module: nn.Module) -> dict[str | None, Any]:
    """The module's rope types by kind of layer; most families have one, for all."""
    given = getattr(module, "rope_type", None)
    return given if isinstance(given, dict) else {None: given}


def _varies(rope_type: Any) -> bool:
    return isinstance(rope_type, str) and any(name in rope_type for name in _VARYING)


def _each_alone(module: Any, args: tuple[Any, ...], given: dict[str, Any], made: Any) -> Any:
    """The rotations of int64[B, T] position ids, float[B, T, D] each, by each sample's length."""
    given = dict(zip(("x", "position_ids", "layer_type"), args, strict=False)) | given
    layer, positions = given.get("layer_type"), given.get("position_ids")
    if not _varies(_types(module)[layer]):
        return made
    parts = _parts(made)
    if positions is None or positions.ndim != 2 or parts[0].shape[:2] != positions.shape:
        raise ModelError(
            f"{type(module).__name__} does not give one rotation per position, so samples of other"
            " lengths would change it; choose a language with another rope type than"
            f" {module.rope_type}"
        )
    lengths = _lengths(positions).clamp_min(_usual(module, layer))
    rotations = [torch.empty_like(part) for part in parts]
    for length in lengths.unique():  # type: ignore[no-untyped-call]
        chosen = lengths == length
        # A sample of one token makes `dynamic` forget the longest one before.
        module.forward(**given | {"position_ids": torch.zeros_like(positions[:1, :1])})
        alone = module.forward(**given | {"position_ids": positions[chosen][None]})
        for rotation, part in zip(rotations, _parts(alone), strict=True):
            rotation[chosen] = part[0]
    return tuple(rotations) if isinstance(made, tuple) else rotations[0]


def _parts(made: Any) -> tuple[torch.Tensor, ...]:
    """Cosines and sines, or one complex tensor."""
    return made if isinstance(made, tuple) else (made,)


def _lengths(positions: torch.Tensor) -> torch.Tensor:
    """int64[B, T]: length of the sample that each of int64[B, T] position ids belongs to.

    Positions grow within a sample and start again with the next one, and with every row.
    """
    starts = pad(positions.diff(dim=1) <= 0, (1, 0), value=True).flatten()
    sample = starts.cumsum(0) - 1
    longest = torch.zeros_like(sample).scatter_reduce(
        0, sample, positions.flatten() + 1, "amax", include_self=False
    )
    return longest[sample].reshape(positions.shape)


def _usual(module: Any, layer: str | None) -> int:
    """A length up to which all samples have the same rotations."""
    given = module.config.rope_parameters
    known = (
        (given if layer is None else given[layer]).get("original_max_position_embeddings"),
        getattr(module, "original_max_seq_len", None),
    )
    return min((int(length) for length in known if length), default=1)
