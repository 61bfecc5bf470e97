"""One request through the openai client: its body, or what became of it in terms of whether
asking again can help.

The client's own retries are off. It does not repeat an answer that is cut off or holds no words,
it reads a connection that nobody listens to as one that will come back, and its waits, up to two
minutes, do not end when the run stops; so the caller repeats.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sailvit.core.errors import DataError

_AGAIN = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 507, 529))
"""Statuses that pass by themselves."""
_HOPELESS = frozenset((301, 302, 303, 307, 308, 401, 402, 403, 404, 405))
"""Statuses that every other record would get too."""
_LARGEST = 1 << 24
"""Most bytes of a response; a model's words are a few kilobytes."""


class TryAgainError(Exception):
    """A failure that may pass."""

    def __init__(self, reason: str, *, after: float | None = None, refused: bool = False) -> None:
        super().__init__(reason)
        self.after = after
        """Seconds that the server wants to be left alone; None when it said nothing."""
        self.refused = refused
        """Whether nothing listens at that address."""


class RejectedError(Exception):
    """The server will not have this one request."""


class EndpointError(DataError):
    """A server that cannot be used: asking about other records would fail as well."""


class Transport:
    """A server's chat completions, which several threads may ask for at a time."""

    def __init__(self, url: str, *, key: str | None, timeout: float) -> None:
        """A request is complete within `timeout` seconds, or is given up."""
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
        # What the environment holds for OpenAI's own server is not for this one.
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
            TryAgainError: nothing came, or not all, or the server is busy.
            RejectedError: the server refuses this body.
            EndpointError: the server refuses everything.
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
    """Whether nothing listens; the client wraps what the system said more than once."""
    while error is not None and not isinstance(error, ConnectionRefusedError):
        error = error.__cause__ or error.__context__
    return error is not None


def _read(response: Any, deadline: float) -> bytes:
    """The whole body. The client's time-out is per read, so a server that drips needs a deadline
    of its own.
    """
    body = bytearray()
    for block in response.iter_bytes():
        body += block
        if len(body) > _LARGEST:
            raise RejectedError(f"the response has more than {_LARGEST:,} bytes")
        if time.monotonic() > deadline:
            raise TryAgainError("the response took too long")
    return bytes(body)


def _seconds(headers: Mapping[str, str]) -> float | None:
    """What `Retry-After` asks for, if it gives seconds; its other form, a date, is rare and
    left to the backoff.
    """
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None
