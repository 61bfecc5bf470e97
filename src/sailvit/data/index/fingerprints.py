"""Short hashes of what token and tile counts depend on."""

from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from sailvit.core.layout import VisualLayout

if TYPE_CHECKING:
    from sailvit.data.text import FastTokenizer

VERSION = 1
"""Raised whenever the same record, tokenizer and layout give other counts, or files of counts another form."""


def tokenizer_fingerprint(tokenizer: FastTokenizer) -> str:
    """Hash of everything that turns a conversation into ids: vocabulary, rules, special tokens, chat template.

    Truncation and padding are left out: they are settings of whoever uses the tokenizer.
    """
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    core.update(truncation=None, padding=None)
    return digest(
        [core, tokenizer.chat_template, sorted(tokenizer.all_special_tokens), tokenizer.bos_token]
    )


def layout_fingerprint(layout: VisualLayout) -> str:
    """Hash of everything that turns an image into tiles and tiles into placeholders."""
    return digest(asdict(layout))


def digest(value: Any) -> str:
    """Hash of a JSON value, in 16 characters."""
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()
