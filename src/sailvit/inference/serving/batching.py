"""Dynamic batching: requests that come while others wait are answered together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from sailvit.core.errors import SailvitError
from sailvit.inference.generation import Generation, Options, Prompt
from sailvit.inference.serving.limits import Limits, RefusedError
from sailvit.inference.serving.rows import ChoosingRows, EndingRows, Row
from sailvit.inference.streaming import TokensSeen

FAULTS = (ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
"""What a model's code and torch raise; the requests of the batch fail, the server goes on."""


@dataclass(frozen=True)
class Waiting:
    """An answer that is waited for."""

    prompt: Prompt
    """What it is generated from."""
    row: Row
    """What takes its tokens."""
    failed: Callable[[SailvitError | None], None]
    """Called if it cannot be made; None: for a reason that is nobody's business."""

    @property
    def longest(self) -> int:
        """Most tokens of prompt and answer."""
        return len(self.prompt) + self.row.choice.longest


class Batcher:
    """One thread that answers what waits, several at a time."""

    def __init__(
        self,
        generation: Generation,
        limits: Limits,
        batched: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._generation = generation
        self._limits = limits
        self._batched = batched
        self._waiting: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._current: Sequence[Waiting] = ()
        self._closed = False
        self._padded = True
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)

    def start(self) -> None:
        """Prove how the language answers, and begin."""
        with self._generation.lock, self._generation.generating(8) as how:
            self._padded = how.padded
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""
        return self._thread.is_alive() and not self._closed

    @property
    def waiting(self) -> int:
        """Answers that wait for a batch."""
        return len(self._waiting)

    def put(self, asked: Waiting) -> None:
        """Let an answer be made.

        Raises:
            RefusedError: the server is ending.
        """
        with self._changed:
            if self._closed:
                raise RefusedError(503, "the server is ending", code="server_ending")
            self._waiting.append(asked)
            self._changed.notify()

    def close(self) -> None:
        """End, after the next token of the batch in progress; what waits fails."""
        with self._changed:
            self._closed = True
            left, self._waiting = list(self._waiting), deque()
            self._changed.notify()
        for asked in self._current:
            asked.row.cancelled = True
        for asked in left:
            asked.failed(RefusedError(503, "the server is ending", code="server_ending"))
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            self._batched(len(batch))
            self._current = batch
            self._answer(batch)

    def _next(self) -> list[Waiting]:
        """The answers of the next batch; empty at the end."""
        with self._changed:
            while not self._closed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                until = time.monotonic() + self._limits.wait
                while len(self._waiting) < self._limits.batch and not self._closed:
                    if (left := until - time.monotonic()) <= 0 or not self._changed.wait(left):
                        break
                if batch := self._taken():
                    return batch
        return []

    def _taken(self) -> list[Waiting]:
        """The oldest that waits, and what can be answered with it, in the order they came."""
        batch: list[Waiting] = []
        rest: deque[Waiting] = deque()
        for asked in self._waiting:
            if asked.row.cancelled:
                asked.row.finish("stop")
            elif self._fits(batch, asked):
                batch.append(asked)
            else:
                rest.append(asked)
        self._waiting = rest
        return batch

    def _fits(self, batch: Sequence[Waiting], asked: Waiting) -> bool:
        if not batch:
            return True
        if not self._padded and len(asked.prompt) != len(batch[0].prompt):
            return False
        # Every row is padded to the longest, so memory goes by that times their number.
        longest = max(asked.longest, *(other.longest for other in batch))
        size = len(batch) + 1
        return size <= self._limits.batch and size * longest <= self._limits.batch_tokens

    def _answer(self, batch: Sequence[Waiting]) -> None:
        try:
            self._generate(batch)
        except SailvitError as error:
            self._fail(batch, error)
        except FAULTS:
            self._fail(batch, None)
        for asked in batch:
            asked.row.finish("stop")

    def _fail(self, batch: Sequence[Waiting], error: SailvitError | None) -> None:
        """Answer one at a time what failed together, as one of them may be the reason."""
        # An answer that has begun to stream cannot begin again.
        if len(batch) > 1 and not any(asked.row.begun for asked in batch):
            for asked in batch:
                self._answer([asked])
            return
        for asked in batch:
            if not asked.row.done:
                asked.failed(error)
                asked.row.done = True

    @torch.no_grad()
    def _generate(self, batch: Sequence[Waiting]) -> None:
        generation, rows = self._generation, [asked.row for asked in batch]
        longest = max(asked.longest for asked in batch)
        with generation.lock, generation.generating(longest) as how:
            embedded = generation.embed([asked.prompt for asked in batch])
            # Without a cache answers come whole, and only greedy ones can be made.
            watched = how.cached or not all(row.choice.greedy for row in rows)
            called = _watching(rows, embedded[0].device) if watched else {}
            options = Options(max(row.choice.longest for row in rows), {}, called)
            found = generation.answer_batch(embedded, options, how)
        if not watched:
            for row, tokens in zip(rows, found, strict=True):
                _hand_over([row] * len(tokens), tokens)


def _watching(rows: Sequence[Row], device: torch.device) -> dict[str, object]:
    """Arguments of generation with which each row chooses and ends in its own way."""
    return {
        "streamer": TokensSeen(lambda tokens: _hand_over(rows, tokens)),
        "stopping_criteria": [EndingRows(rows)],
        "logits_processor": [ChoosingRows([row.choice for row in rows], device)],
    }


def _hand_over(rows: Sequence[Row], tokens: Sequence[int]) -> None:
    for row, token in zip(rows, tokens, strict=True):
        row.put(token)
