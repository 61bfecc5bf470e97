"""A dialogue with a model: its messages so far, and the images of the next question."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from sailvit.core.errors import DataError
from sailvit.data.processing.images import image_size
from sailvit.inference.model import LONGEST, RunModel


class Dialogue:
    """Questions and answers that see what was said before.

    Images of earlier questions stay in it; their visual tokens are kept, so they cost nothing
    but their places in the prompt.
    """

    def __init__(
        self,
        model: RunModel,
        *,
        system: str | None = None,
        max_new_tokens: int = LONGEST,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = model
        self._longest = max_new_tokens
        self._options = dict(options or {})
        self._before = [] if system is None else [{"role": "system", "content": system}]
        self.messages: list[dict[str, Any]] = list(self._before)
        """The conversation so far, as chat messages."""
        self.images: list[Path] = []
        """Images of the next question."""

    def attach(self, image: Path) -> tuple[int, int]:
        """Width and height of an image that is part of the next question from now on.

        Raises:
            DataError: it cannot be read.
        """
        if not image.is_file():
            raise DataError(f"{image} is no file; expected an image", kind="missing file")
        # Now, so that an image that cannot be read is told of before the question is typed.
        size = image_size(image)
        self.images.append(image)
        return size

    def clear(self) -> None:
        """Forget all messages and images but the system turn."""
        self.messages, self.images = list(self._before), []

    def ask(self, text: str) -> Generator[str, None, None]:
        """The answer in pieces. Closed early, what was given counts as the answer; a question
        that fails, or has no piece yet, is as if never asked.

        Raises:
            DataError: the question cannot be asked.
        """
        pieces = [{"type": "image", "image": image} for image in self.images]
        asked = {"role": "user", "content": [*pieces, {"type": "text", "text": text}]}
        answer, whole = "", False
        try:
            for piece in self._model.stream(
                [*self.messages, asked], max_new_tokens=self._longest, **self._options
            ):
                answer += piece
                yield piece
            whole = True
        finally:
            if answer or whole:
                self.messages += [asked, {"role": "assistant", "content": answer}]
                self.images = []


def printable(text: str) -> str:
    """The text without control characters but line breaks and tabs: a model's answer must not
    move the cursor, or rename the window, of the terminal that shows it.
    """
    return "".join(char for char in text if char in "\n\t" or not _controls(ord(char)))


def _controls(code: int) -> bool:
    return code < 0x20 or 0x7F <= code < 0xA0
