"""How well images and texts match, by a model with a vision and a text tower such as CLIP or
SigLIP; and a refined vision tower in the place of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, PreTrainedModel

from sailvit.core.errors import ModelError
from sailvit.distributed.processes import my_device
from sailvit.models.loading.parts import resolve_source
from sailvit.models.towers.tower import Tower

_TOLERANCE = 1e-4
"""Largest difference of patch features between a tower and its copy in a dual encoder, relative to
the largest feature."""


class DualEncoder:
    """Cosine similarity of images and texts; texts are cut to the length of the text tower, 64
    to 77 tokens.
    """

    def __init__(self, source: str, *, device: torch.device | None = None) -> None:
        folder = resolve_source(source)
        try:
            model = AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
            self._tokenizer = AutoTokenizer.from_pretrained(folder)
            self._processor = AutoImageProcessor.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"cannot load a dual encoder from {source} ({str(error).splitlines()[0]}); expected a folder or hub id"
                " with weights in safetensors, tokenizer and preprocessor config"
            ) from error
        text = getattr(model.config, "text_config", None)
        if text is None or not hasattr(model, "get_image_features"):
            raise ModelError(
                f"{source} is a {model.config.model_type}; expected a model with a vision and a text tower that share"
                " their features, such as CLIP or SigLIP"
            )
        self.source = source
        """Where it is from."""
        self._length = int(text.max_position_embeddings)
        self._device = device or my_device()
        self.model: PreTrainedModel = model.to(self._device).eval()
        """Both towers."""

    @torch.inference_mode()
    def __call__(self, images: Sequence[NDArray[np.uint8]], texts: Sequence[str]) -> list[float]:
        """Cosine float[I], of shape (I), of each image uint8[H, W, 3] with the text of the same
        place.
        """
        pixels = self._processor(
            list(images), return_tensors="pt", input_data_format="channels_last"
        )
        found = self.model(**pixels.to(self._device), **self._tokens(texts))
        similarity = torch.cosine_similarity(found.image_embeds, found.text_embeds)
        return [float(value) for value in similarity.cpu()]

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors float[T, D] of texts."""
        made = self.model.get_text_features(**self._tokens(texts))
        return _unit(made)

    def _tokens(self, texts: Sequence[str]) -> Any:
        # SigLIP was trained on texts padded to the full length, and CLIP masks the padding.
        tokens = self._tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self._length,
            return_tensors="pt",
        )
        return tokens.to(self._device)


class PairedTower:
    """A tower with the text tower, and the pooling, that its base was trained with."""

    def __init__(self, encoder: DualEncoder, tower: Tower) -> None:
        self.tower = tower
        """The tower, which says what tiles are."""
        self._encoder = encoder
        self._model = encoder.model
        taken = inspect.signature(self._model.get_image_features).parameters
        self._stretches = tower.asks_to_interpolate and "interpolate_pos_encoding" in taken

    @torch.inference_mode()
    def images(self, tiles: torch.Tensor) -> torch.Tensor:
        """Unit vectors float[I, D] of tiles uint8[I, C, H, W]."""
        inputs = self.tower.inputs(tiles)
        if self._stretches:
            inputs["interpolate_pos_encoding"] = True
        made = self._model.get_image_features(**inputs)
        return _unit(made)

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors float[T, D] of texts."""
        return self._encoder.texts(texts)


def pair_tower(source: str, tower: Tower) -> PairedTower:
    """`tower` in the place of the vision tower of the dual encoder at `source`, on the tower's
    device.

    What the tower itself does not hold, such as a pooling head or a projection, stays the dual
    encoder's. Patch features of a noise tile are compared with the tower's before it is used.

    Raises:
        ModelError: the dual encoder cannot be loaded, or its vision tower is another model or of
            another size.
    """
    encoder = DualEncoder(source, device=tower.mean.device)
    part = _vision_half(encoder)
    held, own = part.state_dict(), tower.model.state_dict()
    name = tower.model.config.model_type
    other = [key for key, tensor in own.items() if held.get(key, _NONE).shape != tensor.shape]
    if other:
        key = other[0]
        there = f"{list(held[key].shape)}" if key in held else "nothing"
        raise ModelError(
            f"the tower ({name}, {tower.preprocessing.size} px) does not fit the vision tower of"
            f" {source} ({part.config.model_type}): {key} is {list(own[key].shape)} here and {there}"
            " there; name the dual encoder that the tower was made from, at the same image size"
        )
    part.load_state_dict(own, strict=False)
    _prove(part, tower, source)
    return PairedTower(encoder, tower)


_NONE = torch.empty(0, 0, 0, 0, 0)
"""In the place of a tensor that is not there: no weight has its shape."""


def _vision_half(encoder: DualEncoder) -> PreTrainedModel:
    """The vision tower inside a dual encoder: what was made of the vision half of its config."""
    half = getattr(encoder.model.config, "vision_config", None)
    kind = getattr(half, "model_type", None)
    for _, part in encoder.model.named_modules():
        if (
            isinstance(part, PreTrainedModel)
            and part is not encoder.model
            and part.config.model_type == kind
        ):
            return part
    raise ModelError(
        f"{encoder.source} has no vision tower that is a model by itself; expected CLIP, SigLIP,"
        " AIMv2 or another dual encoder of transformers"
    )


@torch.inference_mode()
def _prove(part: PreTrainedModel, tower: Tower, source: str) -> None:
    size = tower.preprocessing.size
    noise = torch.randint(
        0, 256, (1, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    ).to(tower.mean.device)
    one, two = tower.patch_features(noise), tower.around(part).to(noise.device).eval()(noise)
    if float((one - two).abs().max()) > _TOLERANCE * float(one.abs().max()):
        raise ModelError(
            f"the tower gives other patch features inside {source} than by itself; name the dual"
            " encoder that it was made from"
        )


def _unit(made: Any) -> torch.Tensor:
    """Unit vectors float[N, D] of features, which newer transformers wrap in an output."""
    features = made if isinstance(made, torch.Tensor) else made.pooler_output
    return torch.nn.functional.normalize(features.float(), dim=-1)
