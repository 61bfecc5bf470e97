"""One HTTP request: its body, or what became of it in terms of whether asking again can help.

The standard library's client does: huggingface_hub has changed its HTTP library between
releases that this project supports, a model's answer takes seconds, and retries have to be
decided here in any case.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from email.message import Message

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


def post(url: str, body: bytes, *, key: str | None, timeout: float) -> bytes:
    """The body of the response to a POST of JSON, complete within `timeout` seconds.

    Raises:
        TryAgainError: nothing came, or not all, or the server is busy.
        RejectedError: the server refuses this body.
        EndpointError: the server refuses everything.
    """
    headers = {
        "Content-Type": "application/json",
        **({"Authorization": f"Bearer {key}"} if key else {}),
    }
    request = urllib.request.Request(url, body, headers, method="POST")
    deadline = time.monotonic() + timeout
    try:
        with _opener().open(request, timeout=timeout) as response:
            return _read(response, deadline)
    except urllib.error.HTTPError as error:
        with error:
            raise _judged(url, error) from error
    except urllib.error.URLError as error:
        refused = isinstance(error.reason, ConnectionRefusedError)
        raise TryAgainError(f"no connection ({error.reason})", refused=refused) from error
    except (OSError, http.client.HTTPException) as error:
        raise TryAgainError(f"{type(error).__name__} {error}".strip()) from error


def _opener() -> urllib.request.OpenerDirector:
    """A client that knows proxies but follows no redirect: that would hand the key to another
    host.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The whole body. The library's time-out is per read, so a server that drips needs a
    deadline of its own.
    """
    body = bytearray()
    while block := response.read1(1 << 16):
        body += block
        if len(body) > _LARGEST:
            raise RejectedError(f"the response has more than {_LARGEST:,} bytes")
        if time.monotonic() > deadline:
            raise TryAgainError("the response took too long")
    declared = response.headers.get("Content-Length")
    if declared is not None and len(body) < int(declared):
        raise TryAgainError(f"the response ended after {len(body)} of {declared} bytes")
    return bytes(body)


def _judged(url: str, error: urllib.error.HTTPError) -> Exception:
    said = error.read(300).decode("utf-8", "replace").strip()
    what = f"status {error.code}{': ' if said else ''}{said}"
    if error.code in _AGAIN:
        return TryAgainError(what, after=_seconds(error.headers))
    if error.code in _HOPELESS:
        advice = {401: "the key", 403: "the key", 402: "the account"}.get(
            error.code, "the address and the model's name"
        )
        return EndpointError(f"{url} answers with {what}; check {advice}")
    return RejectedError(what)


def _seconds(headers: Message) -> float | None:
    """What `Retry-After` asks for, if it gives seconds; its other form, a date, is rare and
    left to the backoff.
    """
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None
