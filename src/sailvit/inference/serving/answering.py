"""One request on its way: its answers made by the batcher, collected or streamed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from functools import partial

from sailvit.core.errors import SailvitError
from sailvit.inference.generation import Generation
from sailvit.inference.serving.batching import Batcher, Waiting
from sailvit.inference.serving.limits import RefusedError
from sailvit.inference.serving.replies import DONE, Reply, error_body, event
from sailvit.inference.serving.requests import Request
from sailvit.inference.serving.rows import Choice, Reason, Row

_Told = tuple[int, str, Reason | None, int]
"""Number of the answer, a piece of its text, why it ends if it does, and its tokens so far."""


class Answers:
    """The answers to one request, as they come from the batcher's thread."""

    def __init__(self, request: Request, generation: Generation, batcher: Batcher) -> None:
        self.request = request
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[_Told | RefusedError] = asyncio.Queue()
        ends = generation.ends
        self._rows = [
            Row(choice, generation.tokenizer, ends, partial(self._told, index))
            for index, choice in enumerate(_choices(request))
        ]
        self.made = [0] * len(self._rows)
        """Tokens of each answer so far."""
        for row in self._rows:
            batcher.put(Waiting(request.prompt, row, self._failed))

    def cancel(self) -> None:
        """Nobody waits any more: the rows end with the next token."""
        for row in self._rows:
            row.cancelled = True

    async def pieces(self) -> AsyncIterator[tuple[int, str, Reason | None]]:
        """Number of an answer, a piece of its text, and why it ends if it does.

        Raises:
            RefusedError: an answer cannot be made.
        """
        left = len(self._rows)
        while left:
            told = await self._queue.get()
            if isinstance(told, RefusedError):
                raise told
            index, piece, reason, self.made[index] = told
            left -= reason is not None
            yield index, piece, reason

    async def whole(self) -> list[tuple[str, str, int]]:
        """The text of every answer, why it ended, and its tokens."""
        texts, reasons = [""] * len(self._rows), ["stop"] * len(self._rows)
        async for index, piece, reason in self.pieces():
            texts[index] += piece
            reasons[index] = reason or reasons[index]
        return list(zip(texts, reasons, self.made, strict=True))

    async def events(self, reply: Reply) -> AsyncIterator[bytes]:
        """The events of a stream."""
        try:
            for index in range(len(self._rows)):
                yield reply.chunk(index, {"role": "assistant", "content": ""})
            async for index, piece, reason in self.pieces():
                if piece:
                    yield reply.chunk(index, {"content": piece})
                if reason is not None:
                    yield reply.chunk(index, {}, reason)
            if self.request.usage:
                yield reply.last(sum(self.made))
            yield DONE
        except RefusedError as error:
            # The status has been sent, so the stream itself says it.
            yield event(error_body(error.status, str(error), error.code))
        finally:
            # Also where the client is gone, and this generator is closed.
            self.cancel()

    def _told(self, index: int, piece: str, reason: Reason | None, made: int) -> None:
        self._put((index, piece, reason, made))

    def _failed(self, error: SailvitError | None) -> None:
        if isinstance(error, RefusedError):
            self._put(error)
        elif error is not None:
            self._put(RefusedError(400, str(error)))
        else:
            self._put(RefusedError(500, "the answer could not be made", code="server_error"))

    def _put(self, told: _Told | RefusedError) -> None:
        # The loop is closed once the server has ended; then nobody waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._queue.put_nowait, told)


def _choices(request: Request) -> list[Choice]:
    """The choice of each answer: with a seed, each has its own."""
    choice = request.choice
    if choice.seed is None:
        return [choice] * request.count
    return [replace(choice, seed=(choice.seed + n) % 2**63) for n in range(request.count)]
