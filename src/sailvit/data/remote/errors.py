"""Why a download failed, for users who do not know the libraries below."""

from __future__ import annotations

import re
from typing import NamedTuple

_CREDENTIALS = re.compile(r"status code: 40[13]\b|//169\.254\.169\.254|//metadata\.google")
"""Marks a generic error as refused access. The addresses are those of cloud machines' metadata
servers, which are asked where no credentials are set."""


class OtherBytes(Exception):  # noqa: N818 - never leaves this package; what does is a DataError
    """The server has a file of that name, but with other bytes than were requested."""

    def __init__(self, said: str, *, final: bool) -> None:
        super().__init__(said)
        self.final = final
        """Whether another request cannot give other bytes."""


class Failure(NamedTuple):
    """A failure in the user's words."""

    kind: str
    """The kind of the DataError."""
    said: str
    """What happened."""
    advice: str
    """What to do."""
    final: bool
    """Whether asking again cannot help."""


def failure_of(error: Exception) -> Failure:
    """The failure that the error of one try means."""
    if isinstance(error, FileNotFoundError):
        said, advice = "the server has no such file", "check the URL, or upload the file again"
        return Failure("missing shard", said, advice, final=True)
    if isinstance(error, OtherBytes):
        advice = "it was replaced or damaged since it was indexed: restore it, or index again"
        return Failure("changed shard", str(error), advice, final=error.final)
    if _is_denial(error):
        advice = (
            "check the credentials in the environment; for a public bucket set"
            " AWS_SKIP_SIGNATURE=true (or GOOGLE_...)"
        )
        return Failure("unreachable", "the server refused access", advice, final=True)
    return Failure(
        "unreachable",
        telling_part(str(error)),
        "check the network and the server, then start again",
        final=False,
    )


def telling_part(text: str) -> str:
    """The part of a library's message that says why, without URLs: they can hold tokens."""
    if status := re.search(r"status code: (\d{3}[\w ]*)", text):
        return f"the server answered {status[1].strip()}"
    if causes := re.findall(r'(?:message|error): "([^"]*)"', text):
        return str(causes[-1])
    line = (text.strip().splitlines() or ["no reason given"])[0]
    return re.sub(r"\(?\bhttps?://\S+", "", line.split(" - ")[-1]).strip(" :")[:200]


def _is_denial(error: Exception) -> bool:
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    return isinstance(error, PermissionDeniedError | UnauthenticatedError) or bool(
        _CREDENTIALS.search(str(error))
    )
