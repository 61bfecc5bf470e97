"""Reasoning that rows keep apart from an answer: put into its text where that comes to the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sailvit.core.errors import DataError

_THOUGHT = "<think>\n{}\n</think>\n\n{}"
"""An answer that begins with its reasoning, as models write it that were taught to think
aloud."""


def with_reasoning(reasoning: str, text: str) -> str:
    """An answer with its reasoning in front of it."""
    return _THOUGHT.format(reasoning.strip(), text)


def joins_reasoning(render: Callable[[Sequence[dict[str, Any]]], str]) -> bool:
    """Whether a template shows reasoning that is given apart as it shows reasoning in the text.

    Then it may be put into the text, where everything else is proved; else it would be left
    out, or learnt in another form than the model is asked in.
    """
    asked = {"role": "user", "content": "zq0qz"}
    apart = {"role": "assistant", "content": "zq1qz", "reasoning_content": "zq2qz"}
    inside = {"role": "assistant", "content": with_reasoning("zq2qz", "zq1qz")}
    first, second = (render([asked, said] * 2) for said in (apart, inside))
    return first == second and "zq2qz" in first


def reasoning_refused() -> DataError:
    """What to say of reasoning that a template does not show."""
    return DataError(
        "a turn has `reasoning_content`, and the tokenizer's chat template does not show it; write"
        " it into the answer's text, remove it, or give the tokenizer a template that does",
        kind="unsupported",
    )
