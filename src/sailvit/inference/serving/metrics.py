"""Counts and times of a server, in Prometheus' form."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """What one server counts; several in one process count apart."""

    def __init__(self, waiting: Callable[[], int], open_requests: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        here = self._registry
        self.requests = Counter(
            "sailvit_requests", "Requests by status.", ["status"], registry=here
        )
        self.seconds = Histogram(
            "sailvit_request_seconds",
            "From a request to its last byte.",
            buckets=_SECONDS,
            registry=here,
        )
        self.batches = Histogram(
            "sailvit_batch_size", "Answers made together.", buckets=_SIZES, registry=here
        )
        self.tokens = Counter(
            "sailvit_tokens", "Tokens of prompts and answers.", ["of"], registry=here
        )
        for name, told, read in (
            ("sailvit_waiting", "Answers that wait for a batch.", waiting),
            (
                "sailvit_open_requests",
                "Requests that are read, wait or are answered.",
                open_requests,
            ),
        ):
            Gauge(name, told, registry=here).set_function(read)

    def text(self) -> bytes:
        """All of them."""
        return bytes(generate_latest(self._registry))
