"""A judge behind an OpenAI-style server."""

from __future__ import annotations

import threading
from pathlib import Path

from sailvit.core.records import Record, Turn
from sailvit.dataprep.annotate.cache import ReplyCache
from sailvit.dataprep.annotate.client import Endpoint
from sailvit.dataprep.annotate.wire import EndpointConfig
from sailvit.evaluation.scoring.judging import Inquiry


class EndpointJudge:
    """Asks a server, with retries and a cache; several threads may ask at a time."""

    def __init__(self, config: EndpointConfig, cache: Path) -> None:
        self.name = config.model
        self.concurrency = config.concurrency
        self._config = config
        self._cache = ReplyCache(cache)
        self._lock = threading.Lock()
        self._endpoints: dict[float, Endpoint] = {}

    def reply(self, inquiry: Inquiry) -> str | None:
        """Its reply; None when the server gave none after all retries.

        Raises:
            EndpointError: the server refuses every request or cannot be reached.
        """
        record = Record(inquiry.index, (Turn("user", inquiry.prompt),))
        reply = self._endpoint(inquiry.temperature).reply(record)
        return reply.text if reply.error is None else None

    def _endpoint(self, temperature: float) -> Endpoint:
        with self._lock:
            # The temperature is part of the cache's key: a warmer reply is another one.
            if temperature not in self._endpoints:
                config = self._config.model_copy(update={"temperature": temperature})
                self._endpoints[temperature] = Endpoint(config, self._cache)
            return self._endpoints[temperature]

    def close(self) -> None:
        """Close the cache."""
        self._cache.close()
