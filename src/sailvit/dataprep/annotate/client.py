"""A model behind an OpenAI-style server, asked by several threads, with retries."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from sailvit.core.errors import DataError
from sailvit.core.records import Record
from sailvit.core.seeding import derive_seed
from sailvit.data.process_pool import in_order
from sailvit.dataprep.annotate.cache import ReplyCache, question_key
from sailvit.dataprep.annotate.replies import Reply, Usage
from sailvit.dataprep.annotate.transport import (
    EndpointError,
    RejectedError,
    Transport,
    TryAgainError,
)
from sailvit.dataprep.annotate.wire import EndpointConfig, read_reply, request_body

PATIENCE = 20
"""Records that may fail one after the other before the run stops: if the server is gone, all
that are left would fail."""
_LONGEST_WAIT = 60.0
"""Most seconds between two attempts."""
_PREFETCH = 4
"""Records handed out per thread: replies are taken in order, and while one is slow the other
threads have work."""


class Endpoint:
    """Asks a server about records over HTTP, unless the cache has the reply."""

    def __init__(self, config: EndpointConfig, cache: ReplyCache | None = None) -> None:
        self.config = config
        self.usage = Usage()
        self._cache = cache
        self._server = Transport(config.url, key=_key(config.key_variable), timeout=config.timeout)
        self._stop = threading.Event()
        self._reached = False

    def ask(self, records: Iterable[Record]) -> Iterator[Reply]:
        """One reply per record, in order.

        Raises:
            EndpointError: the server refuses every request, cannot be reached, or failed too
                often in a row.
        """
        failures = 0
        self._stop.clear()
        pool = ThreadPoolExecutor(self.config.concurrency, thread_name_prefix="asking")
        try:
            for reply in in_order(
                lambda record: pool.submit(self.reply, record),
                Future.result,
                records,
                most=_PREFETCH * self.config.concurrency,
            ):
                failures = failures + 1 if reply.error is not None else 0
                if failures >= PATIENCE:
                    raise EndpointError(
                        f"the last {failures} records got no answer from {self._server.url}"
                        f" ({reply.error}); what came before is kept: start again when the"
                        " server works"
                    )
                yield reply
        finally:
            # Wakes threads that wait for their next attempt, which else hold the end up for a
            # minute.
            self._stop.set()
            pool.shutdown(cancel_futures=True)

    def reply(self, record: Record) -> Reply:
        """The reply to one record, from the cache or the server."""
        try:
            key = question_key(self.config.identity, record)
            if self._cache is not None and (known := self._cache.recall(key)) is not None:
                self.usage.add("remembered")
                return known
            body = request_body(self.config, record)
        except DataError as error:
            reply = Reply(error=str(error))
        else:
            reply = self._asked(body, key)
            if self._cache is not None:
                self._cache.store(key, reply)
        self.usage.took(reply)
        return reply

    def _asked(self, body: Mapping[str, Any], key: str) -> Reply:
        """The server's reply, or why the last of `attempts` attempts failed."""
        # The openai client's own retries are not used; `Transport` says why.
        reason = "stopped"
        for attempt in range(self.config.attempts):
            if self._stop.is_set():
                break
            self.usage.add("requests")
            self.usage.add("repeats", int(attempt > 0))
            try:
                reply = read_reply(self._server.post(body))
            except RejectedError as error:
                return Reply(error=str(error))
            except (TryAgainError, ValueError) as error:
                reason = str(error)
                self._pause(error, attempt, key)
            else:
                self._reached = True
                return reply
        return Reply(error=f"no answer after {self.config.attempts} attempts: {reason}")

    def _pause(self, error: Exception, attempt: int, key: str) -> None:
        """Wait before the next attempt: longer each time, and each thread differently long, so
        that they do not all come back at once.
        """
        told = error if isinstance(error, TryAgainError) else TryAgainError(str(error))
        # A server that was never there is a wrong address; one that goes away may come back.
        if told.refused and not self._reached:
            raise EndpointError(
                f"nothing listens at {self._server.url}; start the server, or correct the address"
            ) from error
        if attempt + 1 >= self.config.attempts:
            return
        spread = 0.5 + derive_seed(attempt, key) % 1000 / 1000
        wait = told.after if told.after is not None else self.config.backoff * 2**attempt * spread
        self._stop.wait(min(wait, _LONGEST_WAIT))


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not (key := os.environ.get(variable, "").strip()):
        raise DataError(
            f"the environment variable {variable} is empty; put the server's key there, or name"
            " another"
        )
    return key
