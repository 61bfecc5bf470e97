"""Rows of a batch that each choose their tokens, and end, in a way of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase
from transformers.generation.stopping_criteria import StoppingCriteria

from sailvit.inference.text_stream import TextStream

Reason = Literal["stop", "length"]


@dataclass(frozen=True)
class Choice:
    """How the tokens of an answer are chosen, and when it ends."""

    longest: int
    """Most tokens."""
    temperature: float = 0.0
    """0: the likeliest token."""
    top_p: float = 1.0
    """Share of the likeliest tokens to draw from."""
    top_k: int = 0
    """Number of the likeliest tokens to draw from; 0: all."""
    presence: float = 0.0
    """Taken off the scores of tokens that are in the answer."""
    frequency: float = 0.0
    """The same for each time that they are."""
    seed: int | None = None
    """Seed of sampling; None: a new one."""
    stops: tuple[str, ...] = ()
    """Texts that end the answer and are no part of it."""

    @property
    def greedy(self) -> bool:
        """Whether each token is the likeliest."""
        return not (self.temperature or self.presence or self.frequency)


class Row:
    """One answer of a batch: it takes tokens and hands on text."""

    def __init__(
        self,
        choice: Choice,
        tokenizer: PreTrainedTokenizerBase,
        ends: Collection[int],
        told: Callable[[str, Reason | None, int], None],
    ) -> None:
        self.choice = choice
        self._text = TextStream(tokenizer, ends, choice.stops)
        self._told = told
        self.cancelled = False
        """Whether nobody waits for the answer any more."""
        self.done = False
        """Whether the answer has ended."""
        self.begun = False
        """Whether a token has come."""

    def put(self, token: int) -> None:
        """Take a token; what comes after the end is padding."""
        if self.done:
            return
        self.begun = True
        piece = self._text.put(token)
        if self._text.ended:
            self.finish("stop", piece)
        elif self._text.tokens >= self.choice.longest:
            self.finish("length", piece)
        elif piece:
            self._told(piece, None, self._text.tokens)

    def finish(self, reason: Reason, piece: str = "") -> None:
        """End the answer, unless it has ended."""
        if not self.done:
            self.done = True
            self._told(piece + self._text.finish(), reason, self._text.tokens)


class ChoosingRows(LogitsProcessor):
    """Scores in which the likeliest token of each row is the one that its choice takes.

    Drawing is adding Gumbel noise and taking the largest, so rows that draw and rows that do
    not share a greedy batch, and a seed gives the same answer in any batch.
    """

    def __init__(self, choices: Sequence[Choice], device: torch.device) -> None:
        self._choices = choices
        self._generators = [_generator(choice, device) for choice in choices]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores float[B, N] after int64[B, A] tokens of the answers."""
        for row, (choice, generator) in enumerate(
            zip(self._choices, self._generators, strict=True)
        ):
            if not choice.greedy:
                scores[row] = _chosen(scores[row], input_ids[row], choice, generator)
        return scores


class EndingRows(StoppingCriteria):
    """Ends each row of a batch when its answer has ended, or nobody waits for it."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """Whether each row ends, bool[B], of int64[B, A] tokens and float[B, N] scores."""
        made = input_ids.shape[1]
        ended = [row.done or row.cancelled or made >= row.choice.longest for row in self._rows]
        return torch.tensor(ended, device=input_ids.device)


def _generator(choice: Choice, device: torch.device) -> torch.Generator:
    seed = int.from_bytes(os.urandom(7), "big") if choice.seed is None else choice.seed
    return torch.Generator(device).manual_seed(seed)


def _chosen(
    scores: torch.Tensor, made: torch.Tensor, choice: Choice, generator: torch.Generator
) -> torch.Tensor:
    """float[N]: the scores of one row, changed."""
    if choice.presence or choice.frequency:
        counts = torch.bincount(made, minlength=len(scores))
        scores = scores - choice.presence * (counts > 0) - choice.frequency * counts
    if not choice.temperature:
        return scores
    scores = scores / choice.temperature
    if choice.top_k:
        least = scores.topk(min(choice.top_k, len(scores))).values[-1]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if choice.top_p < 1:
        ordered, places = scores.sort(descending=True)
        # Without its own share: the token that passes `top_p` is kept, and one always is.
        before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
        scores = scores.index_fill(0, places[before >= choice.top_p], -torch.inf)
    # Gumbel noise from uniform numbers, of which one may be 0 and has no logarithm then.
    noise = torch.rand(scores.shape, generator=generator, device=scores.device)
    return scores - (-noise.clamp_min(1e-20).log()).log()
