"""The language of a text, or only its script where no language recognizer is installed."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.util import find_spec

SHORT = "short"
"""The result for texts that have too few letters to tell."""
SCRIPT = "script:"
"""Prefix of scripts, as in `script:latin`, so that none is taken for a language."""

_LETTERS = 12
"""Fewest letters of a text; with fewer, recognizers guess. An ideograph counts as four."""
_LOOKED_AT = 1000
"""Characters of a text that are read; more cost time and change hardly any result."""


def language(text: str) -> str:
    """The language of a text as its ISO 639-1 code, or its script (`script:latin`) without
    py3langid (extra `curate`).
    """
    text = text[:_LOOKED_AT]
    scripts = Counter(_script(letter) for letter in text if letter.isalpha())
    if scripts.total() + 3 * scripts["cjk"] < _LETTERS:
        return SHORT
    if recognizer() == "script":
        return SCRIPT + scripts.most_common(1)[0][0]
    return _classify()(text)[0]


def recognizer() -> str:
    """How languages are told here: by `py3langid`, or by `script` where it is not installed."""
    return "script" if find_spec("py3langid") is None else "py3langid"


@cache
def _classify() -> Callable[[str], tuple[str, float]]:
    # The model is a file of the package (139 languages, 5 MB, BSD); loading it takes a second,
    # so it is loaded once per process.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    classify: Callable[[str], tuple[str, float]] = identifier.classify
    return classify


@lru_cache(maxsize=1 << 14)
def _script(letter: str) -> str:
    """A letter's script: the first word of its Unicode name (`latin`, `cyrillic`, `cjk`)."""
    return unicodedata.name(letter, "UNKNOWN").split()[0].lower()
