"""Reasoning that rows hold apart from an answer: put into its text where the template would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sailvit.core.errors import DataError

_THOUGHT = "<think>\n{}\n</think>\n\n{}"
"""An answer that begins with its reasoning, as reasoning models write it."""


def with_reasoning(reasoning: str, text: str) -> str:
    """The answer's text with its reasoning before it."""
    return _THOUGHT.format(reasoning.strip(), text)


def joins_reasoning(render: Callable[[Sequence[dict[str, Any]]], str]) -> bool:
    """Whether a template shows separate reasoning exactly as it shows reasoning in the text.

    Then it may be put into the text, whose rendering is proved. Otherwise it would be dropped,
    or learnt in another form than the one that the template uses.
    """
    # Texts that no template writes itself, so that each shows where it was put.
    asked = {"role": "user", "content": "zq0qz"}
    apart = {"role": "assistant", "content": "zq1qz", "reasoning_content": "zq2qz"}
    inside = {"role": "assistant", "content": with_reasoning("zq2qz", "zq1qz")}
    first, second = (render([asked, said] * 2) for said in (apart, inside))
    return first == second and "zq2qz" in first


def reasoning_refused() -> DataError:
    """The error for reasoning that a template does not show."""
    return DataError(
        "a turn has `reasoning_content`, and the tokenizer's chat template does not show it; write"
        " it into the answer's text, remove it, or give the tokenizer a template that does",
        kind="unsupported",
    )
