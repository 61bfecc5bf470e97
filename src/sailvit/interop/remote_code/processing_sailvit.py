"""Chat messages and images as a multimodal model's inputs, token for token as in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import BatchFeature
from transformers.processing_utils import MultiModalData, ProcessorMixin


class SailvitProcessor(ProcessorMixin):
    """An image processor and a tokenizer; the image token becomes one per visual token."""

    # transformers takes keyword-only arguments for unknown ones.
    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        image_token: str = "<|image_pad|>",
        wrap: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep both and how they meet.

        Args:
            image_processor: makes tiles of images.
            tokenizer: the language's.
            chat_template: makes a text of chat messages.
            image_token: stands for an image in the text.
            wrap: tokens before and after an image's visual tokens; None: none.
            kwargs: what every processor of transformers holds.
        """
        del kwargs
        self.image_token = image_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        self.image_seq_length = image_processor.image_seq_length
        self.wrap = list(wrap) if wrap else None
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        *,
        return_tensors: str | None = None,
        return_mm_token_type_ids: bool = False,
        **kwargs: Any,
    ) -> BatchFeature:
        """`input_ids` and `attention_mask` int64[B, T], padded on the left, and `pixel_values`
        float[I, 3, H, W], the tiles of all images in order; in native resolution `image_grids`
        int64[n, 2] too.

        Other arguments go to the tokenizer.
        """
        texts = [text] if isinstance(text, str) else list(text or [])
        seen: dict[str, Any] = {}
        if images is not None:
            made = self.image_processor(images)
            texts = self._expanded(texts, made["num_patches"].tolist())
            seen = {name: made[name] for name in ("pixel_values", "image_grids") if name in made}
        given = {**kwargs.pop("text_kwargs", {}), **kwargs}
        given = {name: value for name, value in given.items() if name not in _OTHERS}
        # Special tokens are the chat template's; a second beginning of text would be new to the
        # language.
        options = {"add_special_tokens": False, "padding": len(texts) > 1, **given}
        read = dict(self.tokenizer(texts, **{**options, "padding_side": "left"})) if texts else {}
        read.pop("token_type_ids", None)
        if return_mm_token_type_ids:
            read["mm_token_type_ids"] = [
                [int(token == self.image_token_id) for token in row] for row in read["input_ids"]
            ]
        return BatchFeature({**read, **seen}, tensor_type=return_tensors)

    def _get_num_multimodal_tokens(
        self, image_sizes: Sequence[Sequence[int]] | None = None, **kwargs: Any
    ) -> MultiModalData:
        """Image tokens and tiles of images of sizes (height, width); serving engines ask."""
        del kwargs
        counts = [
            self.image_processor.get_number_of_image_patches(height, width)
            for height, width in image_sizes or ()
        ]
        return MultiModalData(
            num_image_tokens=[count * self.image_seq_length for count in counts],
            num_image_patches=counts,
        )

    @property
    def model_input_names(self) -> list[str]:
        """What the model is given."""
        native = ["image_grids"] if self.image_processor.native else []
        return ["input_ids", "attention_mask", "pixel_values", *native]

    def post_process_image_text_to_text(self, generated: Any, **kwargs: Any) -> list[str]:
        """The texts of generated tokens, one per row."""
        texts: list[str] = self.tokenizer.batch_decode(
            torch.as_tensor(generated), **{"skip_special_tokens": True, **kwargs}
        )
        return texts

    def _expanded(self, texts: Sequence[str], tiles: Sequence[int]) -> list[str]:
        """The texts with an image token per visual token."""
        marks = sum(text.count(self.image_token) for text in texts)
        if marks != len(tiles):
            raise ValueError(f"{marks} places of images in the text, and {len(tiles)} images")
        first, last = self.wrap or ("", "")
        left, made = list(tiles), []
        for text in texts:
            before, *after = text.split(self.image_token)
            for rest in after:
                run = self.image_token * (left.pop(0) * self.image_seq_length)
                before += f"{first}{run}{last}{rest}"
            made.append(before)
        return made


_OTHERS = ("videos", "audio", "images_kwargs", "videos_kwargs", "audio_kwargs", "common_kwargs")
"""What processors of other modalities take."""
