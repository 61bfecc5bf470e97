"""What libraries raise while a part is loaded or run, as one sentence with its cause."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from huggingface_hub.errors import EntryNotFoundError, StrictDataclassError
from safetensors import SafetensorError

from sailvit.core.errors import ModelError
from sailvit.core.recipe import Part

FOREIGN: tuple[type[BaseException], ...] = (
    OSError,
    ValueError,
    LookupError,
    ImportError,
    AttributeError,
    RuntimeError,
    TypeError,
    ArithmeticError,
    AssertionError,
    NameError,
    SyntaxError,
    MemoryError,
    EOFError,
    SafetensorError,
    EntryNotFoundError,
    StrictDataclassError,
)
"""What model libraries and models' own code raise; sailvit's errors are none of these."""

_LONGEST = 240
"""Most characters of a cause that are repeated."""

_TELLING = (OSError, ValueError, ImportError, RuntimeError, SafetensorError, StrictDataclassError)
"""Kinds whose text says what happened; the others' text needs the kind's name before it."""


class ForeignErrors:
    """A context for library calls: what they raise becomes a `ModelError` that says what was
    being done.
    """

    def __init__(self, doing: str, advice: str = "") -> None:
        self._doing = doing
        self._advice = advice

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The tokenizers library raises the base class itself.
        if error is not None and (isinstance(error, FOREIGN) or kind is Exception):
            raise ModelError(self._sentence(error)) from error

    def _sentence(self, error: BaseException) -> str:
        return f"{self._doing}: {short_reason(error)}{self._advice}"


class Loading(ForeignErrors):
    """A context for code that loads `part` from `source`."""

    def __init__(self, part: Part, source: str) -> None:
        super().__init__(f"cannot load the {part} {source!r}")
        self._part = part
        self._source = source

    def _sentence(self, error: BaseException) -> str:
        part, source = self._part, self._source
        if Path(source).is_dir():
            return f"cannot load the {part} from the folder {source}: {short_reason(error)}"
        if Path(source).is_absolute() or source.startswith((".", "~")):
            return (
                f"cannot load the {part}: there is no folder {source}; name one that holds a saved"
                " model, or a hub id"
            )
        unreached = isinstance(error, OSError)
        return f"cannot load the {part} {source!r}: " + (
            f"no such folder here, and from the hub: {short_reason(error)}. Check the name and the"
            " connection, or name a folder with a downloaded copy"
            if unreached
            else short_reason(error)
        )


def short_reason(error: BaseException) -> str:
    """The error's text in one line, without lists of class names, and with the error's type
    where the text needs it.
    """
    # After its first line the hub's client gives advice about its own settings.
    told = str(error).strip()
    text = " ".join((told.partition("\n")[0] if isinstance(error, OSError) else told).split())
    # transformers lists every class it knows, several hundred.
    for mark in (" Model type should be one of", " Should have a `model_type` key"):
        text = text.partition(mark)[0]
    text = " ".join(_remote_code(text).split())
    if len(text) > _LONGEST:
        text = text[:_LONGEST].rsplit(" ", 1)[0] + " ..."
    name = type(error).__name__
    if not text:
        return name
    told = text.rstrip(".;")
    return (
        told
        if isinstance(error, _TELLING) and not isinstance(error, LookupError)
        else (f"{name}: {told}")
    )


def _remote_code(text: str) -> str:
    """The text, or advice for sailvit where transformers names its setting for remote code."""
    if "trust_remote_code" not in text:
        return text
    return "it is made of code of its own; read that code, then set model.trust_remote_code: true"


def describe(value: Any) -> str:
    """A value that a tower or language returned, for a message: its shape, or its type."""
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"float{list(shape)}"
