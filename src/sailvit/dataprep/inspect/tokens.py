"""Tokens as chips: pieces of text that a page can show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sailvit.data.processing.text import FastTokenizer

_PARTS = 8
"""Most tokens of one character; a longer run of tokens that is no text becomes a chip too."""
_CUT = "\N{REPLACEMENT CHARACTER}"
"""Decoding gives this for a part of a character."""


def chips(
    tokenizer: FastTokenizer, tokens: Sequence[int], trained: Sequence[bool], *, start: int
) -> list[dict[str, Any]]:
    """Consecutive tokens as chips: text, whether it is trained on, position of the first token,
    ids.

    A chip is one token, or all tokens of one character. The chips' texts, joined, are the
    decoded text.
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
    """Begin, end and text of each chip."""
    # Some tokenizers drop the blank before a word that is decoded alone: so each chip is
    # decoded after the one before it, and the text that this adds is the chip's.
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
