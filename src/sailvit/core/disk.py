"""A disk that is full or cannot be written, as a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from sailvit.core.errors import RunError

DISK_ERRORS = (OSError, SafetensorError)
"""What a write raises when the disk is full, read-only or gone; safetensors wraps what the
system says."""


@contextmanager
def explained(what: str, advice: str = "continue with --resume") -> Iterator[None]:
    """A context for code that writes `what`: a disk error leaves it as a RunError that says
    what could not be written, why, and what to do.
    """
    try:
        yield
    except DISK_ERRORS as error:
        raise RunError(
            f"{what} could not be written ({reason(error)}). Free space there or make the folder"
            f" writable, then {advice}"
        ) from error


def reason(error: BaseException) -> str:
    """The first line of what an error says; its name when it says nothing."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
