"""Short hashes of what token and tile counts depend on."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from sailvit.core.layout import VisualLayout
from sailvit.data.processing.template_source import is_dated, template_source, written_dates

if TYPE_CHECKING:
    from sailvit.data.processing.text import FastTokenizer

VERSION = 4
"""Increased whenever the same record, tokenizer and layout give other counts, or files of
counts change their format."""


def tokenizer_fingerprint(tokenizer: FastTokenizer, day: date | None = None) -> str:
    """Hash of everything that turns a conversation into ids: vocabulary, rules, special tokens,
    chat template.

    For a template that writes the date it includes what is written on `day`; None: today.
    Truncation and padding are left out, as callers of the tokenizer set them.
    """
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    core.update(truncation=None, padding=None)
    source = template_source(tokenizer)
    specials = sorted(tokenizer.all_special_tokens)
    dated = [written_dates(source, day or date.today())] if is_dated(source) else []
    return digest([core, source or None, specials, tokenizer.bos_token, *dated])


def layout_fingerprint(layout: VisualLayout) -> str:
    """Hash of everything that turns an image into tiles, and tiles into tokens."""
    added = {"wrap": None, "newline": False, "native": None, "second_grid": False}
    # What a layout does not use is left out, so that counts made before it could stay good.
    given = {k: v for k, v in asdict(layout).items() if k not in added or v != added[k]}
    return digest(given)


def digest(value: Any) -> str:
    """Hash of a JSON value, in 16 characters."""
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()
