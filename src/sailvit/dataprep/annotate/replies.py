"""What all models that are asked have in common: records go in, replies come out, in the same
order.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from sailvit.core.errors import DataError
from sailvit.core.records import Record, Source


@dataclass(frozen=True)
class Reply:
    """A model's reply, or why there is none."""

    text: str = ""
    """The reply itself."""
    error: str | None = None
    """Why there is no reply; None: there is one."""
    prompt_tokens: int = 0
    """Tokens of the request, as the server counts them."""
    answer_tokens: int = 0
    """Tokens of the reply, as the server counts them."""


@dataclass
class Usage:
    """What the questions have cost so far."""

    requests: int = 0
    """Requests sent, repeated ones included."""
    repeats: int = 0
    """Requests that were sent again after a failure."""
    remembered: int = 0
    """Replies that came from the cache."""
    failed: int = 0
    """Records without a reply."""
    prompt_tokens: int = 0
    """Tokens sent."""
    answer_tokens: int = 0
    """Tokens received."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    """Held while counting, as several threads count."""

    def add(self, name: str, count: int = 1) -> None:
        """Add to the field of this name."""
        with self._lock:
            setattr(self, name, getattr(self, name) + count)

    def took(self, reply: Reply) -> None:
        """Count a reply that did not come from the cache."""
        self.add("failed", int(reply.error is not None))
        self.add("prompt_tokens", reply.prompt_tokens)
        self.add("answer_tokens", reply.answer_tokens)


class Responder(Protocol):
    """A model that answers the last user turn of each record."""

    usage: Usage
    """What it has cost so far."""

    def ask(self, records: Iterable[Record]) -> Iterator[Reply]:
        """One reply per record, in order; only a few records are taken in advance."""


@dataclass(frozen=True)
class Asked:
    """A record of a source with the reply about it."""

    position: int
    """Its position in the source."""
    record: Record | None
    """The record; None: it cannot be read."""
    reply: Reply
    """The reply, or why there is none."""


def ask_about(
    source: Source,
    prompt: Callable[[Record, int], Record],
    responder: Responder,
    positions: Iterable[int],
) -> Iterator[Asked]:
    """Every position with its reply, in order; for a record that cannot be read or asked about
    no request is sent.

    `prompt` turns a record and its position into the record that is sent; it may raise
    DataError.
    """
    # The responder reads ahead, so several positions may be waiting for their replies.
    waiting: deque[Asked] = deque()

    def prompts() -> Iterator[Record]:
        """The records to send; others are noted in `waiting` with the reason."""
        for position in positions:
            record = None
            try:
                record = source[position]
                asked = prompt(record, position)
            except DataError as error:
                waiting.append(Asked(position, record, Reply(error=str(error))))
                continue
            waiting.append(Asked(position, record, Reply()))
            yield asked

    for reply in responder.ask(prompts()):
        while waiting[0].reply.error is not None:
            yield waiting.popleft()
        known = waiting.popleft()
        yield Asked(known.position, known.record, reply)
    yield from waiting
