"""The model of a run, which answers questions about images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from sailvit.core.errors import DataError, ModelError
from sailvit.core.records import Record
from sailvit.inference.conversation import Message, conversation, question
from sailvit.inference.generation import Generation, Options, read_options
from sailvit.inference.processor import ChatProcessor, Conversations, conversations, is_several
from sailvit.inference.streaming import pieces
from sailvit.inference.text_stream import text_of
from sailvit.models.loading.build import ModelBundle
from sailvit.models.structure.connector import Connector
from sailvit.models.towers.tower import Tower

Images = Any
"""The images of one question: None, an image, or a list of images. An image is a path, encoded
bytes, a PIL image, or an array or tensor of pixels."""
LONGEST = 256
"""Most tokens of an answer, unless a call says otherwise."""
BATCH = 16
"""Most prompts that are answered at the same time, unless a call says otherwise."""


class RunModel:
    """A tower, a connector and a language that answer questions about images.

    Decoding is greedy unless a call asks otherwise, whatever the language's own generation
    config says: `do_sample`, `temperature`, `num_beams`, `stop_strings`, `streamer`,
    `logits_processor` and all else that transformers' `generate` takes can be given to every
    method that answers.
    """

    def __init__(self, bundle: ModelBundle, identity: str = "") -> None:
        # New modules stand in training mode, where dropout and DropPath make every answer another.
        bundle.mllm.eval()
        self.bundle = bundle
        self.identity = identity
        """What no other model has, so that answers can be told apart; empty where nobody asked."""
        self.generation = Generation(bundle)
        """What generates tokens."""
        self.processor = ChatProcessor(self.generation.processor)
        """Makes inputs from chat messages, token for token those of training."""

    @property
    def tower(self) -> Tower:
        """The vision tower: tiles uint8[I, 3, H, W] to features float[I, P, D]."""
        return self.bundle.mllm.tower

    @property
    def connector(self) -> Connector:
        """The connector: features float[I, P, D] to visual tokens float[I, V, D]."""
        return self.bundle.mllm.connector

    @property
    def language(self) -> nn.Module:
        """The language model, as transformers loaded it."""
        language: nn.Module = self.bundle.mllm.language
        return language

    def generate(
        self,
        images: Images = None,
        text: str | Sequence[str] = "",
        *,
        system: str | None = None,
        max_new_tokens: int = LONGEST,
        batch: int = BATCH,
        **options: Any,
    ) -> Any:
        """The answer to a question about images; a list of questions gives a list of answers.

        `<image>` marks in a text say where its images go; without marks they stand before the
        text, a line each. With the processor's tensors instead (`generate(**inputs)`), it gives
        what transformers' own `generate` gives.

        Args:
            images: None, an image, or a list of images; for a list of questions, a list with
                one such entry per question.
            text: the question, or a list of questions.
            system: text of the system turn; None: no system turn.
            max_new_tokens: most tokens of an answer.
            batch: most questions that are answered at the same time.
            options: what else transformers' `generate` takes. Answers end before the first of
                `stop_strings`. With `num_return_sequences` every question gets a list.

        Raises:
            DataError: images and marks differ in number, an image cannot be read, or an option
                is unknown.
        """
        if "input_ids" in options:
            return self.generate_ids(max_new_tokens=max_new_tokens, **options)
        chosen = read_options(max_new_tokens, options)
        if isinstance(text, str):
            return self.answers([question(images, text, system)], chosen, batch=1)[0]
        shown = [None] * len(text) if images is None else list(images)
        if len(shown) != len(text):
            raise DataError(
                f"{len(shown)} images for {len(text)} questions; expected one entry for each"
                " question: None, an image or a list of images"
            )
        records = [question(*pair, system) for pair in zip(shown, text, strict=True)]
        return self.answers(records, chosen, batch=batch)

    def chat(
        self,
        messages: Conversations,
        images: Sequence[Any] = (),
        *,
        max_new_tokens: int = LONGEST,
        batch: int = BATCH,
        **options: Any,
    ) -> Any:
        """The answer to a conversation in chat messages; a list of conversations gives a list
        of answers.

        Args:
            messages: `{"role": ..., "content": ...}` each; the content is a text, or a list of
                pieces such as `{"type": "image", "image": "a.jpg"}` and `{"type": "text",
                "text": "What is shown?"}`, or OpenAI's `image_url`.
            images: the images of pieces that hold none; for several conversations a list for
                each.
            max_new_tokens: most tokens of an answer.
            batch: most conversations that are answered at the same time.
            options: as for `generate`.

        Raises:
            DataError: a message or an image cannot be used, or an option is unknown.
        """
        records = conversations(messages, images)
        answers = self.answers(records, read_options(max_new_tokens, options), batch=batch)
        return answers if is_several(messages) else answers[0]

    def answers(self, records: Sequence[Record], options: Options, *, batch: int) -> list[Any]:
        """An answer per record, or a list of answers where several are asked for."""
        prompts = [self.generation.prompt(record) for record in records]
        ends, made = self.generation.ends, [[""]] * len(prompts)
        for index, rows in self.generation.tokens(prompts, options, batch=batch):
            made[index] = [
                text_of(self.bundle.tokenizer, tokens, ends, options.stops) for tokens in rows
            ]
        return made if options.returned > 1 else [texts[0] for texts in made]

    def stream(
        self,
        messages: Sequence[Message],
        images: Sequence[Any] = (),
        *,
        max_new_tokens: int = LONGEST,
        **options: Any,
    ) -> Iterator[str]:
        """The answer to a conversation in pieces, as it is made; joined they are `chat`'s.

        Raises:
            DataError: a message or an image cannot be used, or an option is unknown.
        """
        prompt = self.generation.prompt(conversation(messages, images))
        return pieces(self.generation, prompt, read_options(max_new_tokens, options))

    @torch.no_grad()
    def generate_ids(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grids: torch.Tensor | None = None,
        *,
        max_new_tokens: int = LONGEST,
        **options: Any,
    ) -> Any:
        """What transformers' `generate` gives for the processor's tensors: the tokens of the
        answers int64[B, A], without the prompts.

        Args:
            input_ids: int64[B, T], padded on the left.
            attention_mask: int64[B, T], 0 where it is padding; None: nothing is.
            pixel_values: uint8[I, C, H, W], the tiles of all images in order; None: no images.
            image_grids: int64[M, 2], rows and columns of tiles of each image in native resolution.
            max_new_tokens: most tokens of an answer.
            options: as for `generate`.

        Raises:
            DataError: rows are padded on the right.
            ModelError: the language's answers change with padding, or it needs no cache.
        """
        mllm, chosen = self.bundle.mllm, read_options(max_new_tokens, options)
        tokens = input_ids.to(mllm.device)
        mask = torch.ones_like(tokens) if attention_mask is None else attention_mask.to(tokens)
        if not mask[:, -1].all():
            raise DataError(
                "the rows are padded on the right, where their answers begin; expected padding on"
                " the left, as the processor makes it"
            )
        tiles = tokens.new_zeros(0) if pixel_values is None else pixel_values.to(mllm.device)
        grids = None if image_grids is None else tuple((r, c) for r, c in image_grids.tolist())
        visual = mllm.visual(tiles, grids=grids)
        longest = tokens.shape[1] + chosen.longest
        with self.generation.lock, self.generation.generating(longest) as how:
            if not how.cached or not (how.padded or mask.all()):
                raise ModelError(
                    "this language's answers change with padding or with a cache; use `chat`,"
                    " which answers prompts of one length together"
                )
            rows = mllm.embed(tokens.flatten(), visual).view(*tokens.shape, -1)
            # Zeros where it is padding, as `answer_batch` pads too.
            return self.generation.run(rows * mask[..., None].to(rows), mask, chosen)
