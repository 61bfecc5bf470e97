"""Words and n-grams of a text; n-grams are 64-bit hashes."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from sailvit.core.seeding import mix_bits

Hashes = NDArray[np.uint64]
"""One 64-bit hash per n-gram, uint64[n]."""

_SINGLE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Kana and ideographs: written without spaces, so each counts as a word."""
_WORD = re.compile(rf"[{_SINGLE}]|[^\W{_SINGLE}]+")


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    # scikit-learn's tokenizer takes a sentence in Japanese or Chinese for one word
    # (docs/decisions/011).
    return _WORD.findall(text.casefold())


def ngrams(text: list[str], n: int) -> Hashes:
    """Hashes uint64[n] of every run of `n` words, in order; empty when there are fewer words."""
    count = len(text) - n + 1
    if count < 1:
        return np.zeros(0, dtype=np.uint64)
    ids = np.array([_hash(word) for word in text], dtype=np.uint64)
    found = np.zeros(count, dtype=np.uint64)
    for place in range(n):
        # Mixed after each word, so that the order of the words counts.
        found = rehash(found + ids[place : place + count])
    return found


def rehash(values: Hashes) -> Hashes:
    """Mixed values, uint64[n]: every bit depends on all bits of the value (a step of
    SplitMix64). Equal values stay equal, different ones different.
    """
    # The constant is added so that 0 does not stay 0.
    return mix_bits(values + np.uint64(0x9E3779B97F4A7C15))


def text_bytes(text: str) -> bytes:
    """A text as bytes for a hash; lone surrogates, which UTF-8 refuses, are allowed."""
    return text.encode("utf-8", "surrogatepass")


@lru_cache(maxsize=1 << 16)
def _hash(word: str) -> int:
    # Cached, as half of all words in a text are among the few most frequent.
    return int.from_bytes(blake2b(text_bytes(word), digest_size=8).digest(), "little")
