"""The option that an answer to a multiple-choice question names, as VLMEvalKit finds it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, get_args

from sailvit.core.errors import DataError

Matcher = Literal["2026-06", "2025-08", "before-2025-08", "before-2025-06"]
"""Versions of VLMEvalKit's rules, by the month from which, or until which, they were in force."""
MATCHERS: tuple[Matcher, ...] = get_args(Matcher)
"""All versions, the newest first."""
NEWEST: Matcher = MATCHERS[0]
"""The version that is used unless a caller names another."""
REFUSED = "Z"
"""Found in an answer that refuses: no option, but not unparsed either."""

_FAILED = "Failed to obtain answer via API"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
# Quotes, `<>`, `$`, `-` and every mark that is not ASCII stay, so that `'B'` and `选B` name no
# option.
_PARTED = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_LAST = 4
"""Words at the end of an answer among which its letter must stand, since 2025-08."""
_DECLARED = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)
"""Since 2026-06. No end of a word is asked for: "The answer is dog" declares D."""


def read_matcher(name: str) -> Matcher:
    """The version of that name; DataError for another."""
    for known in MATCHERS:
        if known == name:
            return known
    raise DataError(f"there is no matcher {name!r}; write one of {', '.join(MATCHERS)}")


def is_older(matcher: Matcher, than: Matcher) -> bool:
    """Whether a version was replaced by `than` or by one before it."""
    return MATCHERS.index(matcher) > MATCHERS.index(than)


def infer_choice(answer: str, options: Mapping[str, str], matcher: Matcher = NEWEST) -> str | None:
    """The letter of the option that an answer names, or Z for a refusal; None: it names none,
    or several.

    `options` holds the texts by their letters.
    """
    return _by_letter(answer, options, matcher) or _by_text(answer, options, matcher)


def _by_letter(answer: str, options: Mapping[str, str], matcher: Matcher) -> str | None:
    if _FAILED in answer:
        return None
    words = answer.translate(_PARTED).split()
    named = [letter for letter in options if letter in words]
    if _refuses(answer) or (not named and REFUSED in words):
        return REFUSED
    last = len(words) if is_older(matcher, "2025-08") else _LAST
    if len(named) == 1 and words.index(named[0]) >= len(words) - last:
        return named[0]
    return None if is_older(matcher, "2026-06") else _declared(answer, options)


def _refuses(answer: str) -> bool:
    return any(refusal in answer for refusal in _REFUSALS)


def _declared(answer: str, options: Mapping[str, str]) -> str | None:
    found = _DECLARED.search(answer)
    letter = found[1].upper() if found else ""
    return letter if letter in options else None


def _by_text(answer: str, options: Mapping[str, str], matcher: Matcher) -> str | None:
    lowered = answer.lower()
    # A long answer may speak of an option without choosing it.
    longest = 2 * sum(len(text) for text in options.values())
    if not is_older(matcher, "2025-08") and len(lowered) > longest:
        return None
    named = [letter for letter, text in options.items() if text.lower() in lowered]
    return named[0] if len(named) == 1 else None
