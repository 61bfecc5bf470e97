"""A trained model on its way out: its tensors under other names, in another precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from sailvit.checkpoint.streaming import Piece
from sailvit.core.batch import Grids
from sailvit.core.errors import ModelError
from sailvit.inference.model import RunModel
from sailvit.models.body import body_of
from sailvit.models.loading.build import ModelBundle
from sailvit.models.towers.families import ordered_pixels
from sailvit.models.towers.native import by_grid


@dataclass(frozen=True)
class Trained:
    """A model, the precision that it leaves in, and where it comes from."""

    model: RunModel
    """The model in float32, its weights already rounded to `dtype`."""
    dtype: torch.dtype
    """Type of the written weights."""
    lineage: Mapping[str, Any] = field(default_factory=dict)
    """What lineage.json says of the run."""

    @property
    def bundle(self) -> ModelBundle:
        """The three parts, the tokenizer and the visual layout."""
        return self.model.bundle

    @property
    def tower(self) -> Any:
        """The vision model, as transformers made it."""
        return self.bundle.mllm.tower.model

    @property
    def language(self) -> Any:
        """The language, as transformers made it."""
        return self.bundle.mllm.language

    @property
    def connector(self) -> Any:
        """The connector."""
        return self.bundle.mllm.connector

    @property
    def interpolates(self) -> bool:
        """Whether the vision model has to be told to interpolate its position embeddings."""
        tower = self.bundle.mllm.tower
        size = getattr(self.tower.config, "image_size", None)
        own = size[0] if isinstance(size, list | tuple) else size
        return bool(tower.asks_to_interpolate and own != tower.preprocessing.size)

    @property
    def ordered(self) -> int:
        """Patches that a masked autoencoder keeps in order by rising noise; 0 for other towers."""
        tower = self.bundle.mllm.tower
        return tower.patches if tower.family.pixels is ordered_pixels else 0

    @torch.no_grad()
    def last_state(self, tiles: torch.Tensor, grids: Grids | None = None) -> torch.Tensor:
        """The last hidden states float[I, N, D] of the vision model for tiles uint8[I, C, H, W],
        whichever of its states the connector reads; some models give a map float[I, D, H, W].

        With the `grids` of native resolution, those of the last call: images of equal grids
        share one.
        """
        tower = self.bundle.mllm.tower
        pictures = tiles if grids is None else list(by_grid(tiles, grids))[-1][2]
        # One by one where the reloaded model does so; what is watched there is the last one.
        seen = pictures[-1:] if tower.alone else pictures
        state: torch.Tensor = tower.call(tower.normalised(seen))().last_hidden_state
        return state

    def config_of(self, part: nn.Module) -> dict[str, Any]:
        """A part's config as it is written: with the new precision, and without its place."""
        config: Any = part.config
        values: dict[str, Any] = config.to_dict()
        # Paths of the training machine are nobody's business, and the loading version writes its
        # own.
        for name in ("_name_or_path", "transformers_version", "torch_dtype"):
            values.pop(name, None)
        return {**values, "dtype": dtype_name(self.dtype)}


def dtype_name(dtype: torch.dtype) -> str:
    """What config files call a type."""
    return str(dtype).removeprefix("torch.")


def round_weights(model: RunModel, dtype: torch.dtype) -> None:
    """Round the model's weights to `dtype` in place; they stay float32 tensors.

    What is compared afterwards is then the written weights' doing, and not the rounding's.
    """
    with torch.no_grad():
        for parameter in model.bundle.mllm.parameters():
            parameter.copy_(parameter.to(dtype))


def under(prefix: str, module: nn.Module) -> dict[str, torch.Tensor]:
    """The module's tensors, their names behind `prefix`."""
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}


def pieces(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> list[Piece]:
    """The tensors as they are written, floating ones as `dtype`, each converted when its turn
    has come.
    """
    return [_piece(name, tensor, dtype) for name, tensor in tensors.items()]


def _piece(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> Piece:
    kind = dtype if tensor.is_floating_point() else tensor.dtype
    shape = tuple(tensor.shape)
    fetch = partial(tensor.detach().to, kind)
    return Piece(name=name, dtype=kind, shape=shape, offsets=(0,) * len(shape), fetch=fetch)


def language_tensors(language: Any) -> dict[str, torch.Tensor]:
    """The language's tensors, `language_model.*` without its head and `lm_head.*`; a head that
    shares the token embeddings is left out.

    Raises:
        ModelError: it has weights that belong to neither.
    """
    head, base = language.get_output_embeddings(), body_of(language)
    if head is None or base is language:
        raise ModelError(
            f"{type(language).__name__} has no head of its own over a base model; expected a causal"
            " language of two such modules, so this layout cannot hold it"
        )
    # By identity: names would not show a head that is the embedding table itself.
    known = {id(tensor) for module in (base, head) for tensor in _tensors(module)}
    others = [name for name, tensor in _named(language) if id(tensor) not in known]
    if others:
        raise ModelError(
            f"{type(language).__name__} has weights beside its base model and its head"
            f" ({', '.join(others[:3])}), so this layout cannot hold it"
        )
    tied = head.weight is language.get_input_embeddings().weight
    alone = {} if tied else under("lm_head", head)
    return {**under("language_model", base), **alone}


def _named(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters()
    # Buffers that are not saved, such as tables of angles, are made anew when a model is loaded.
    persistent = module.state_dict(keep_vars=True)
    yield from ((name, buffer) for name, buffer in module.named_buffers() if name in persistent)


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from (tensor for _, tensor in _named(module))
