"""One request through the openai client: the response's body, or an error that says whether
another attempt can help.

The client's own retries are off. They do not repeat a response that is cut off or empty, they
take an address where nothing listens for one that will answer soon, and their waits, up to two
minutes, do not end when the run stops (docs/decisions/011). So the caller repeats.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sailvit.core.errors import DataError

_AGAIN = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 507, 529))
"""Statuses of failures that may pass: the same request may work later."""
_HOPELESS = frozenset((301, 302, 303, 307, 308, 401, 402, 403, 404, 405))
"""Statuses that every other record would get too."""
_LARGEST = 1 << 24
"""Most bytes of a response; a usual one has a few kilobytes."""


class TryAgainError(Exception):
    """A failure that may pass."""

    def __init__(self, reason: str, *, after: float | None = None, refused: bool = False) -> None:
        super().__init__(reason)
        self.after = after
        """Seconds that the server asks to wait; None: it does not say."""
        self.refused = refused
        """Whether nothing listens at that address."""


class RejectedError(Exception):
    """The server rejects this one request; others may work."""


class EndpointError(DataError):
    """The server cannot be used: requests for other records would fail too."""


class Transport:
    """Sends requests to a server's chat completions; several threads may do so at a time."""

    def __init__(self, url: str, *, key: str | None, timeout: float) -> None:
        """A request that takes more than `timeout` seconds is given up."""
        try:
            import httpx2
            import openai
        except ImportError as error:
            raise DataError(
                f"asking {url} needs the openai client; install it with: pip install"
                " 'sailvit[annotate]', or ask a run's model with --mllm"
            ) from error
        self._openai, self._http, self._timeout = openai, httpx2, timeout
        unsaid = openai.Omit()
        # The client would send the key, organization and project that the environment holds for
        # OpenAI's server; this server must not get them.
        self._headers = {
            "Authorization": f"Bearer {key}" if key else unsaid,
            "OpenAI-Organization": unsaid,
            "OpenAI-Project": unsaid,
        }
        self._client = openai.OpenAI(
            base_url=url,
            api_key=key or "none",
            max_retries=0,
            timeout=timeout,
            # A redirect would hand the key to another host.
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
        )
        self.url = f"{url.rstrip('/')}/chat/completions"
        """Where requests go."""

    def post(self, body: Mapping[str, Any]) -> bytes:
        """The body of the response to one request.

        Raises:
            TryAgainError: no response, a cut one, or a busy server.
            RejectedError: the server rejects this body.
            EndpointError: the server rejects every request.
        """
        deadline = time.monotonic() + self._timeout
        try:
            completions = self._client.chat.completions.with_streaming_response
            with completions.create(**body, extra_headers=self._headers) as response:
                return _read(response, deadline)
        except self._openai.APIStatusError as error:
            raise self._judged(error) from error
        except self._openai.APIConnectionError as error:
            refused = _is_refused(error)
            reason = error.__cause__ or error
            raise TryAgainError(f"no connection ({reason})", refused=refused) from error
        except self._http.HTTPError as error:
            raise TryAgainError(f"{type(error).__name__} {error}".strip()) from error

    def _judged(self, error: Any) -> Exception:
        said = error.response.text[:300].strip()
        what = f"status {error.status_code}{': ' if said else ''}{said}"
        if error.status_code in _AGAIN:
            return TryAgainError(what, after=_seconds(error.response.headers))
        if error.status_code in _HOPELESS:
            advice = {401: "the key", 403: "the key", 402: "the account"}.get(
                error.status_code, "the address and the model's name"
            )
            return EndpointError(f"{self.url} answers with {what}; check {advice}")
        return RejectedError(what)


def _is_refused(error: BaseException | None) -> bool:
    """Whether nothing listens; the client wraps the system's error in several others."""
    while error is not None and not isinstance(error, ConnectionRefusedError):
        error = error.__cause__ or error.__context__
    return error is not None


def _read(response: Any, deadline: float) -> bytes:
    """The whole body, by the deadline."""
    # The client's time-out is per read: a server that sends a byte at a time would never end.
    body = bytearray()
    for block in response.iter_bytes():
        body += block
        if len(body) > _LARGEST:
            raise RejectedError(f"the response has more than {_LARGEST:,} bytes")
        if time.monotonic() > deadline:
            raise TryAgainError("the response took too long")
    return bytes(body)


def _seconds(headers: Mapping[str, str]) -> float | None:
    """The seconds of a `Retry-After` header; None: there are none."""
    # The header may hold a date instead, which is rare; the backoff then decides.
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None
