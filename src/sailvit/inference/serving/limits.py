"""What one request, and all of them together, may take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sailvit.core.errors import SailvitError


class RefusedError(SailvitError):
    """A request that is refused, with the HTTP status and code that say why."""

    def __init__(self, status: int, message: str, *, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.status = status
        """HTTP status."""
        self.code = code
        """OpenAI's word for the reason."""


@dataclass(frozen=True)
class Limits:
    """Limits of a server."""

    body: int = 20 << 20
    """Most bytes of a request: some ten photographs."""
    images: int = 16
    """Most images of a request."""
    pixels: int = 40_000_000
    """Most pixels of an image: 120 MB once decoded."""
    prompt_tokens: int = 16_384
    """Most tokens of a prompt, visual tokens included."""
    answer_tokens: int = 2048
    """Most tokens of an answer."""
    batch: int = 16
    """Most requests that are answered at the same time."""
    batch_tokens: int = 65_536
    """Most tokens, padding and answers included, of requests that are answered together."""
    wait: float = 0.01
    """Seconds that the first request of a batch waits for others."""
    open_requests: int = 256
    """Most requests that are read, wait or are answered."""
    open_bytes: int = 512 << 20
    """Most bytes of all these requests."""
    read_seconds: float = 30.0
    """Seconds in which a request has to arrive."""
    media: Path | None = None
    """The folder whose images may be named by `file://`; None: none may."""


class Admission:
    """Counts open requests and their bytes, and refuses what is too many."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.requests = 0
        """Requests that are open."""
        self._bytes = 0

    def enter(self, size: int | None) -> int:
        """Count a request whose header says `size` bytes, or None; gives the bytes that it
        holds, for `leave`.

        Raises:
            RefusedError: it is too large, or the server has too many open.
        """
        limits = self._limits
        if size is not None and size > limits.body:
            raise too_large(limits)
        # One that says no size may become as large as any.
        held = limits.body if size is None else size
        if self.requests >= limits.open_requests or self._bytes + held > limits.open_bytes:
            raise RefusedError(
                429,
                f"{self.requests} requests are open, as many as this server takes; try again",
                code="rate_limit_exceeded",
            )
        self.requests += 1
        self._bytes += held
        return held

    def leave(self, held: int) -> None:
        """Count a request no more."""
        self.requests -= 1
        self._bytes -= held


def too_large(limits: Limits) -> RefusedError:
    """The refusal of a request with too many bytes."""
    return RefusedError(
        413,
        f"the request has more than {limits.body:,} bytes; send fewer or smaller images",
        code="request_too_large",
    )
