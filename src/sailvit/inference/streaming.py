"""Answers while they are made: tokens as they come, and an end that is asked for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from transformers.generation.stopping_criteria import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from sailvit.inference.generation import Generation, Options, Prompt
from sailvit.inference.text_stream import TextStream


class TokensSeen(BaseStreamer):
    """A streamer that hands over the new token of every row; transformers' own take one row."""

    def __init__(self, seen: Callable[[list[int]], None]) -> None:
        self._seen = seen

    def put(self, value: torch.Tensor) -> None:
        """Take int64[B] tokens; the prompt, which comes first with two axes, is left out."""
        if value.ndim == 1:
            self._seen(value.tolist())

    def end(self) -> None:
        """Nothing: who reads the tokens knows the end."""


class Stopped(StoppingCriteria):
    """Ends all rows once an event is set."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """Whether each row ends, bool[B], of int64[B, A] tokens and float[B, N] scores."""
        done = self._event.is_set()
        return torch.full((len(input_ids),), done, dtype=torch.bool, device=input_ids.device)


def pieces(generation: Generation, prompt: Prompt, options: Options) -> Iterator[str]:
    """The answer to a prompt in pieces of text, as it is made.

    Generation runs in a thread of its own, and ends when the iterator is closed.
    """
    text = TextStream(generation.tokenizer, generation.ends, options.stops)
    tokens: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    stop = threading.Event()
    with ThreadPoolExecutor(1, "generation") as pool:
        done = pool.submit(_feed, generation, prompt, options, tokens, stop)
        try:
            while not text.ended and (token := tokens.get()) is not None:
                if piece := text.put(token):
                    yield piece
            if piece := text.finish():
                yield piece
        finally:
            stop.set()
        # Raises what ended the generation, if anything did.
        done.result()


def _feed(
    generation: Generation,
    prompt: Prompt,
    options: Options,
    tokens: queue.SimpleQueue[int | None],
    stop: threading.Event,
) -> None:
    """Put the tokens of an answer into a queue, and None when no more come."""
    given = options.called.get("stopping_criteria", ())
    watched = {
        "streamer": TokensSeen(lambda row: tokens.put(row[0])),
        "stopping_criteria": [*given, Stopped(stop)],
    }
    try:
        with generation.lock, generation.generating(len(prompt) + options.longest) as how:
            # Without a cache the tokens come all at once, in the end.
            if how.cached:
                options = replace(options, called={**options.called, **watched})
            for _, rows in generation.tokens([prompt], options, batch=1):
                for token in () if how.cached else rows[0]:
                    tokens.put(token)
    finally:
        tokens.put(None)
