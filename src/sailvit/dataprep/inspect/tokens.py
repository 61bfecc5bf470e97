"""Tokens as chips of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sailvit.data.processing.text import FastTokenizer

_PARTS = 8
"""Most tokens of one character; a longer run that is no text is shown as it is."""
_CUT = "\N{REPLACEMENT CHARACTER}"
"""What decoding gives for a part of a character."""


def chips(
    tokenizer: FastTokenizer, tokens: Sequence[int], trained: Sequence[bool], *, start: int
) -> list[dict[str, Any]]:
    """Consecutive tokens as chips: text, whether it is trained on, position of the first token,
    ids.

    A chip is one token, or as many as make up one character. Text is what the tokenizer gives
    back in context, so joined chips are the decoded text.
    """
    special = set(tokenizer.all_special_ids)
    made = []
    for first, last, text in _pieces(tokenizer, tokens, trained):
        ids = list(tokens[first:last])
        chip = {"text": text, "trained": bool(trained[first]), "at": start + first, "ids": ids}
        made.append(chip | {"special": len(ids) == 1 and ids[0] in special})
    return made


def _pieces(
    tokenizer: FastTokenizer, tokens: Sequence[int], trained: Sequence[bool]
) -> Iterator[tuple[int, int, str]]:
    """Begin, end and text of each chip.

    Decoding a token alone loses the blanks that some tokenizers put between words, so each is
    decoded behind the chip before it, and what is added is its text.
    """
    before, begin = 0, 0
    for end in range(1, len(tokens) + 1):
        known = _decoded(tokenizer, tokens[before:begin])
        added = _decoded(tokenizer, tokens[before:end])[len(known) :]
        whole = added and not added.endswith(_CUT)
        last = end == len(tokens) or trained[end] != trained[begin] or end - begin == _PARTS
        if whole or last:
            yield begin, end, added
            before, begin = begin, end


def _decoded(tokenizer: FastTokenizer, tokens: Sequence[int]) -> str:
    text: str = tokenizer.decode(
        list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return text
