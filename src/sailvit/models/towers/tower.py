"""The tower: any Hugging Face vision model, from uint8 tiles to patch features in row-major
order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel

from sailvit.core.batch import Grids
from sailvit.core.errors import ModelError
from sailvit.models.guards.errors import FOREIGN
from sailvit.models.guards.leaves import leaves_of
from sailvit.models.guards.roles import refuse_inputs, refuse_run
from sailvit.models.towers.families import FAMILIES, Family
from sailvit.models.towers.features import last_tokens
from sailvit.models.towers.layers import FeatureChoice, LayerReader
from sailvit.models.towers.native import native_features
from sailvit.models.towers.patch_row import row_family
from sailvit.models.towers.position_table import at_size, stretched

if TYPE_CHECKING:
    from sailvit.models.towers.native_row import RowReader


@dataclass(frozen=True)
class Preprocessing:
    """What the tower expects of its pixels."""

    size: int
    """Height and width of a tile, in pixels."""
    mean: tuple[float, float, float]
    """Channel means, for pixels in 0..1."""
    std: tuple[float, float, float]
    """Channel standard deviations, for pixels in 0..1."""
    scale: float = 255.0
    """What bytes are divided by first; mean and std are of the quotients."""


class Tower(nn.Module):
    """A vision model as a function `tiles -> patch features`; the model itself stays what
    `from_pretrained` made.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        model: PreTrainedModel,
        preprocessing: Preprocessing,
        choice: FeatureChoice = FeatureChoice(),  # noqa: B008 - it is frozen
    ) -> None:
        super().__init__()
        self.model = model = at_size(model, preprocessing.size)
        self.preprocessing = preprocessing
        self.choice = choice
        self.patch = _patch_size(model)
        self.side = preprocessing.size // self.patch
        for name in ("mean", "std"):
            channels = torch.tensor(getattr(preprocessing, name)).reshape(1, -1, 1, 1)
            # Scaled once here, so that no pass has to divide its pixels first.
            channels = channels * preprocessing.scale
            self.register_buffer(name, channels, persistent=False)
        self.alone = False
        """Whether tiles run one by one, because in a batch they would see each other."""
        self.still = False
        """Whether the model stays in evaluation mode, because in training mode tiles would see
        each other."""
        self.notes: tuple[str, ...] = ()
        """What is unusual about how this tower runs, a sentence each."""
        taken = inspect.signature(model.forward).parameters
        self.asks_to_interpolate = "interpolate_pos_encoding" in taken
        """Whether the model takes other sizes than its config's only when told to."""
        self.row: RowReader | None = None
        """Reads all images of a batch in native resolution in one call of the blocks; None: images
        of equal grids share a call."""
        self.table: str | None = None
        """Module that looks up positions of the config's size alone, whose output is resized for
        other grids; None: the model sees to that by itself."""
        name = model.config.model_type
        self._reader = None if choice.plain else LayerReader(model, choice, name)
        listed = FAMILIES.get(model.config.model_type) or row_family(model)
        self.family = listed or Family()
        self.prefix, self.width, self.idle = self._probe(counted=listed is None)

    def around(self, model: PreTrainedModel, choice: FeatureChoice | None = None) -> Tower:
        """A tower that runs `model` as this one runs its own; `choice` None: with features of the
        same layers.
        """
        made = Tower(model, self.preprocessing, choice or self.choice)
        made.alone, made.still, made.table = self.alone, self.still, self.table
        if made.prefix != self.prefix:
            made.begin_patches(self.prefix)
        return made.train(self.training)

    def train(self, mode: bool = True) -> Tower:  # noqa: FBT001, FBT002 - the signature is torch's
        """Set the mode of the tower, and of its model unless that stays in evaluation mode."""
        super().train(mode)
        if self.still:
            self.model.eval()
        return self

    @property
    def patches(self) -> int:
        """Patch tokens of one tile."""
        return self.side**2

    @property
    def norm(self) -> str | None:
        """Name of the model's final norm, where states of earlier blocks go through it too."""
        return None if self._reader is None else self._reader.norm_of(self.model)

    def forward(self, tiles: torch.Tensor, grids: Grids | None = None) -> torch.Tensor:
        """Patch features float[I, P, D], of shape (tiles, patches, width), of tiles uint8[I, C,
        H, W].

        CLS and register tokens are left out. `grids` are the rows and columns of tiles of each
        image in native resolution; None: every tile is a picture by itself.
        """
        if grids is not None:
            return (self.row or native_features)(self, tiles, grids)
        return self.patch_features(tiles)

    def patch_features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Features float[M, P, D] of the patches of pictures uint8[M, C, H, W], row by row; of
        another size than the tower's own they may be in native resolution alone.
        """
        patches = self._count(pictures)
        return self.tokens(pictures)[:, self.prefix : self.prefix + patches]

    def tokens(self, tiles: torch.Tensor) -> torch.Tensor:
        """All tokens float[I, N, D] of tiles uint8[I, C, H, W], CLS and register tokens
        included.
        """
        pixels = self.normalised(tiles)
        if self.alone and len(pixels) > 1:
            return torch.cat([self._tokens(each[None], self.model) for each in pixels])
        return self._tokens(pixels, self.model)

    def begin_patches(self, prefix: int) -> None:
        """Take the tokens after the first `prefix` ones as the patches."""
        self.prefix, self.width, self.idle = self._probe(counted=False, prefix=prefix)

    def normalised(self, tiles: torch.Tensor) -> torch.Tensor:
        """Tiles uint8[I, C, H, W] as the normalised pixels float[I, C, H, W] of the model."""
        pixels = (tiles.to(self.mean.dtype) - self.mean) / self.std
        # In float32 up to here also where the weights are not: bf16 has too few colours.
        return pixels.to(self.model.dtype)

    def inputs(self, tiles: torch.Tensor) -> dict[str, Any]:
        """The model's keyword inputs for tiles uint8[I, C, H, W]."""
        return dict(self.family.pixels(self.normalised(tiles), self.patch))

    def given(self, tiles: torch.Tensor) -> torch.Tensor:
        """What the model is given of tiles uint8[I, C, H, W] themselves: their pixels or patches,
        as its image processor makes them.
        """
        inputs = self.inputs(tiles)
        name = "pixel_values" if "pixel_values" in inputs else "hidden_states"
        found: torch.Tensor = inputs[name]
        return found

    def call(
        self, pixels: torch.Tensor, model: Callable[..., Any] | None = None
    ) -> Callable[[], Any]:
        """What runs the model once on normalised pixels float[I, C, H, W], with the positions of
        their size; `model` None: the tower's own.
        """
        model = self.model if model is None else model
        inputs: dict[str, Any] = self.family.pixels(pixels, self.patch)
        if self.asks_to_interpolate and pixels.shape[-2:] != self._own_size():
            inputs["interpolate_pos_encoding"] = True
        if self.table is not None and pixels.shape[-2:] != self._own_size():
            grid = (pixels.shape[-2] // self.patch, pixels.shape[-1] // self.patch)
            model = partial(stretched, model, self.model.get_submodule(self.table), grid)
        return partial(model, **inputs)

    def _tokens(self, pixels: torch.Tensor, model: Callable[..., Any]) -> torch.Tensor:
        run, patches = self.call(pixels, model), self._count(pixels)
        raster, patch = self.family.raster, self.patch

        def ordered(states: torch.Tensor) -> torch.Tensor:
            """Tokens float[I, N, D], row by row, of the model's states."""
            return raster(states, pixels, patch)

        if self._reader is not None:
            return self._reader.tokens(run, patches, ordered)
        return last_tokens(run(), patches, self.model.config.model_type, ordered)

    def _own_size(self) -> tuple[int, ...]:
        """Height and width that the model's config gives."""
        size = getattr(self.model.config, "image_size", None)
        return tuple(size) if isinstance(size, list | tuple) else (size or 0,) * 2

    def _count(self, pixels: torch.Tensor) -> int:
        """Patches of each picture in pixels float[I, C, H, W]."""
        return (pixels.shape[-2] // self.patch) * (pixels.shape[-1] // self.patch)

    @torch.enable_grad()
    def _probe(
        self, *, counted: bool, prefix: int | None = None
    ) -> tuple[int, int, frozenset[str]]:
        """Prefix length, width, and the names of parameters that features do not depend on, all
        from one pass without data.

        On the meta device, so it costs milliseconds for any size. Pooling heads, mask tokens
        and norms after the chosen layer get no gradient here, nor would they in training: they
        are kept as they are and never planned to train.
        """
        self._check_size()
        size, name = self.preprocessing.size, self.model.config.model_type
        refuse_inputs(
            self.model.forward, name, self.family.pixels(torch.empty(1, 3, size, size), self.patch)
        )
        try:
            tokens, weights = self._passed(torch.device("meta"))
        except FOREIGN:
            # Some models read sizes back from their tensors, which meta ones do not have; then
            # one tile of zeros runs.
            try:
                tokens, weights = self._passed(torch.device("cpu"))
            except FOREIGN as error:
                refuse_run(self.model, size, error)
        found = tokens.shape[1]
        if prefix is None:
            prefix = found - self.patches if counted else self.family.prefix(self.model.config)
            self._check_count(found, prefix)
        reached = leaves_of(tokens[:, prefix : prefix + self.patches])
        idle = frozenset(key for key, weight in weights.items() if id(weight) not in reached)
        return prefix, tokens.shape[2], idle

    def _passed(self, device: torch.device) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """All tokens of a tile of zeros, from weights of zeros with a graph, and these weights.

        Zeros that are only read take no memory on the CPU, whatever the model's size.
        """
        size = self.preprocessing.size
        weights = {
            name: torch.zeros_like(weight, device=device, requires_grad=True)
            for name, weight in self.model.named_parameters()
        }
        buffers = {
            name: torch.zeros_like(buffer, device=device) if buffer.is_meta else buffer.to(device)
            for name, buffer in self.model.named_buffers()
        }
        pixels = torch.zeros(1, len(self.preprocessing.mean), size, size, device=device)
        state = {**weights, **buffers}
        modes = {module: module.training for module in self.model.modules()}
        self.model.eval()
        run = partial(_called, self.model, state)
        try:
            if self._reader is not None and self._reader.wants_norm:
                inputs = self.family.pixels(pixels, self.patch)
                self._reader.find_norm(self.model, partial(run, **inputs))
            return self._tokens(pixels, run), weights
        finally:
            for module, mode in modes.items():
                module.training = mode

    def _check_count(self, found: int, prefix: int) -> None:
        if found == prefix + self.patches and prefix >= 0:
            return
        name, before, size = self.model.config.model_type, max(prefix, 0), self.preprocessing.size
        advice = (
            "correct its row in models/families.py"
            if name in FAMILIES
            else "choose a ViT, which neither merges nor drops patches on its way"
        )
        if self._own_size() != (size, size):
            advice = f"set model.image.size to the tower's own size, or {advice}"
        raise ModelError(
            f"{name} gives {found} tokens for a {size} px tile; expected"
            f" {before} CLS and register tokens + {self.side} x {self.side} patches ="
            f" {before + self.patches}; {advice}"
        )

    def _check_size(self) -> None:
        size = self.preprocessing.size
        if size % self.patch:
            raise ModelError(
                f"tile size {size} px is not a multiple of the tower's patch size {self.patch} px;"
                f" set model.image.size to {self.side * self.patch} or {(self.side + 1) * self.patch}"
            )


def _called(model: nn.Module, state: dict[str, torch.Tensor], **inputs: Any) -> Any:
    return torch.func.functional_call(model, state, (), inputs)


def _patch_size(model: PreTrainedModel) -> int:
    patch = getattr(model.config, "patch_size", None) or _cutting(model)
    if patch is None:
        raise ModelError(
            f"{model.config.model_type} has no patch_size; choose a tower that is a ViT"
        )
    height, width = (patch, patch) if isinstance(patch, int) else patch
    if height != width:
        raise ModelError(
            f"{model.config.model_type} has patches of {height} x {width} px; only square patches"
            " are supported"
        )
    return int(height)


def _cutting(model: nn.Module) -> tuple[int, ...] | None:
    """Height and width of the patches that the first convolution cuts, where it cuts any; configs
    of models from other libraries do not tell.
    """
    first = next((part for part in model.modules() if isinstance(part, nn.Conv2d)), None)
    cuts = first is not None and first.kernel_size == first.stride != (1, 1)
    return tuple(first.kernel_size) if first is not None and cuts else None
