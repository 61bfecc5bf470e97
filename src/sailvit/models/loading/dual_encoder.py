"""How well images and texts match, by a model with a vision and a text tower such as CLIP or
SigLIP.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from sailvit.core.errors import ModelError
from sailvit.distributed.processes import my_device
from sailvit.models.loading.parts import resolve_source


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
        self._length = int(text.max_position_embeddings)
        self._device = device or my_device()
        self._model = model.to(self._device).eval()

    @torch.inference_mode()
    def __call__(self, images: Sequence[NDArray[np.uint8]], texts: Sequence[str]) -> list[float]:
        """Cosine float[I], of shape (I), of each image uint8[H, W, 3] with the text of the same
        place.
        """
        pixels = self._processor(
            list(images), return_tensors="pt", input_data_format="channels_last"
        )
        # SigLIP was trained on texts padded to the full length, and CLIP masks the padding.
        tokens = self._tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self._length,
            return_tensors="pt",
        )
        found = self._model(**pixels.to(self._device), **tokens.to(self._device))
        similarity = torch.cosine_similarity(found.image_embeds, found.text_embeds)
        return [float(value) for value in similarity.cpu()]
