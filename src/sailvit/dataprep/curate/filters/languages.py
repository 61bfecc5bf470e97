"""The language of a text, or at least its script where no recognizer is installed."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.util import find_spec

SHORT = "short"
"""Given for texts of too few letters to tell."""
SCRIPT = "script:"
"""Begins the names of scripts, as in `script:latin`, so that none is taken for a language."""

_LETTERS = 12
"""Letters that a text needs at least; recognizers guess below. An ideograph counts as four."""
_LOOKED_AT = 1000
"""Characters that decide; more of them change no answer and cost time."""


def language(text: str) -> str:
    """ISO 639-1 code of a text's language with py3langid (extra `curate`), otherwise its script
    as `script:latin`.
    """
    text = text[:_LOOKED_AT]
    scripts = Counter(_script(letter) for letter in text if letter.isalpha())
    if scripts.total() + 3 * scripts["cjk"] < _LETTERS:
        return SHORT
    if recognizer() == "script":
        return SCRIPT + scripts.most_common(1)[0][0]
    return _classify()(text)[0]


def recognizer() -> str:
    """What tells languages here: `py3langid`, or `script` without it."""
    return "script" if find_spec("py3langid") is None else "py3langid"


@cache
def _classify() -> Callable[[str], tuple[str, float]]:
    # The model is a file of the package (139 languages, 5 MB, BSD); it takes a second to load,
    # once per process.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    classify: Callable[[str], tuple[str, float]] = identifier.classify
    return classify


@lru_cache(maxsize=1 << 14)
def _script(letter: str) -> str:
    """`latin`, `cyrillic`, `cjk`, ...: how the name of a letter begins."""
    return unicodedata.name(letter, "UNKNOWN").split()[0].lower()
