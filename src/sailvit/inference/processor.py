"""A processor in the style of transformers: chat messages and images in, tensors out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import BatchFeature

from sailvit.core.errors import DataError
from sailvit.core.records import Record
from sailvit.data.processing.images import load_image, tile_image
from sailvit.data.processing.processor import Processor
from sailvit.inference.conversation import Message, conversation
from sailvit.inference.text_stream import text_of

Conversations = Sequence[Message] | Sequence[Sequence[Message]]
"""One conversation, or several."""


class ChatProcessor:
    """Makes a model's inputs from conversations, token for token as training made them."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self.tokenizer = processor.tokenizer

    def __call__(self, messages: Conversations, images: Sequence[Any] = ()) -> BatchFeature:
        """Inputs of `generate` for one conversation or several: `input_ids` and
        `attention_mask` int64[B, T], padded on the left, and `pixel_values` uint8[I, C, H, W],
        the tiles of all images in order. In native resolution also `image_grids` int64[M, 2],
        the rows and columns of tiles of each image.

        Args:
            messages: `{"role": ..., "content": ...}` each; the content is a text or a list of
                pieces.
            images: the images of pieces that hold none; for several conversations a list for each.

        Raises:
            DataError: a message or an image cannot be used; the message says why.
        """
        records = conversations(messages, images)
        texts = [self._processor.prompt_text(record).tokens for record in records]
        widest = max(map(len, texts))
        rows = [torch.from_numpy(text) for text in texts]
        lengths = torch.tensor([len(row) for row in rows])
        padding = self._processor.padding_id
        cuts = [
            tile_image(load_image(image), self._processor.layout)
            for record in records
            for image in record.images
        ]
        size = self._processor.layout.tile_size
        grids = self._processor.grids([image for record in records for image in record.images])
        native = {} if grids is None else {"image_grids": torch.tensor(grids).reshape(-1, 2)}
        return BatchFeature(
            {
                **native,
                "input_ids": torch.stack(
                    [pad(row, (widest - len(row), 0), value=padding) for row in rows]
                ),
                "attention_mask": (torch.arange(widest) >= widest - lengths[:, None]).long(),
                "pixel_values": torch.cat(
                    [*cuts, torch.zeros(0, 3, size, size, dtype=torch.uint8)]
                ),
            }
        )

    def apply_chat_template(
        self,
        conversation: Conversations,
        images: Sequence[Any] = (),
        *,
        tokenize: bool = True,
    ) -> Any:
        """The inputs of conversations, as the processor itself makes them; with `tokenize`
        False their text, which has one placeholder per image.
        """
        if tokenize:
            return self(conversation, images)
        records = conversations(conversation, images)
        texts = [self._processor.encoder.render_prompt(record) for record in records]
        return texts if is_several(conversation) else texts[0]

    def decode(self, tokens: Sequence[int] | torch.Tensor) -> str:
        """The text of generated tokens, without special tokens."""
        return text_of(self.tokenizer, torch.as_tensor(tokens).tolist(), ())

    def batch_decode(self, rows: Sequence[Sequence[int]] | torch.Tensor) -> list[str]:
        """The texts of generated tokens, one per row."""
        return [self.decode(row) for row in rows]


def is_several(messages: Any) -> bool:
    """Whether it is a list of conversations, and not one conversation."""
    return (
        bool(messages) and not isinstance(messages, str) and isinstance(messages[0], list | tuple)
    )


def conversations(messages: Conversations, images: Sequence[Any] = ()) -> list[Record]:
    """The records of one conversation, or of several with a list of images for each.

    Raises:
        DataError: a message or an image cannot be used, or a conversation has no list.
    """
    if not is_several(messages):
        return [conversation(messages, images)]  # type: ignore[arg-type]
    shown = images or [()] * len(messages)
    if len(shown) != len(messages):
        raise DataError(
            f"{len(shown)} lists of images for {len(messages)} conversations; expected one each"
        )
    return [conversation(*each) for each in zip(messages, shown, strict=True)]  # type: ignore[arg-type]
