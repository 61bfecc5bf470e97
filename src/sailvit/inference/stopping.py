"""Ends of answers at texts that a caller names, for any tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase
from transformers.generation.stopping_criteria import StoppingCriteria

_MORE = 8
"""Tokens that are decoded beyond those that a stop can take, as a decoder may write the first token
of a text otherwise than a later one."""


class StopTexts(StoppingCriteria):
    """Ends a row once its text holds one of `stops`.

    transformers' own criterion (StopStringCriteria) takes tokens for pieces of text that are put
    together as they are: it fails for tokenizers of whole words, and misses stops over a blank
    there. Decoding the last tokens at every step holds for all, and costs far less than the step.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        # A token has a byte of text at least.
        self._last = max(len(stop.encode()) for stop in stops) + _MORE

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        """Whether each row ends, bool[B], of int64[B, A] tokens and float[B, N] scores."""
        rows = input_ids[:, -self._last :].tolist()
        ended = [self._holds_stop(row) for row in rows]
        return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)

    def _holds_stop(self, tokens: Sequence[int]) -> bool:
        # With special tokens too, which a stop may name, and without, as the answer is shown.
        texts = [
            self._tokenizer.decode(
                tokens, skip_special_tokens=skip, clean_up_tokenization_spaces=False
            )
            for skip in (True, False)
        ]
        return any(stop in text for stop in self._stops for text in texts)
