"""What every model that is asked has in common: records go in, replies come out in the same
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
    """What a model said, or why it said nothing."""

    text: str = ""
    """Its words."""
    error: str | None = None
    """Why there are no answers; None when there are."""
    prompt_tokens: int = 0
    """Tokens of the request, as the server counts them."""
    answer_tokens: int = 0
    """Tokens of the words."""


@dataclass
class Usage:
    """What asking has cost so far."""

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
    """Several threads count."""

    def add(self, name: str, count: int = 1) -> None:
        """Count something, by the name of its field."""
        with self._lock:
            setattr(self, name, getattr(self, name) + count)

    def took(self, reply: Reply) -> None:
        """Count a reply that was just received."""
        self.add("failed", int(reply.error is not None))
        self.add("prompt_tokens", reply.prompt_tokens)
        self.add("answer_tokens", reply.answer_tokens)


class Responder(Protocol):
    """A model that answers the last user turn of each record."""

    usage: Usage
    """What it has cost so far."""

    def ask(self, records: Iterable[Record]) -> Iterator[Reply]:
        """One reply per record, in order; only a few records ahead are taken from the iterable."""


@dataclass(frozen=True)
class Asked:
    """One position of a source with what became of its question."""

    position: int
    """Where in the source."""
    record: Record | None
    """What lies there; None when it cannot be read."""
    reply: Reply
    """What was answered, or why nothing was."""


def ask_about(
    source: Source,
    prompt: Callable[[Record, int], Record],
    responder: Responder,
    positions: Iterable[int],
) -> Iterator[Asked]:
    """Every position with its reply, in order; a record that cannot be read or asked about
    costs no request.

    `prompt` makes the record that is sent of the one that lies at a position; it may raise
    DataError.
    """
    waiting: deque[Asked] = deque()

    def prompts() -> Iterator[Record]:
        """What can be asked, noting on the way what cannot."""
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
