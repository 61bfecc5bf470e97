"""The Jinja source of a tokenizer's chat template: the one that transformers renders, with its
date fixed.

A template may ask for today's date (`strftime_now`). Rendered on two days it gives two texts,
so a run that is resumed or repeated would train on another. Here the date is a given one, in
every rendering.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time

from transformers import PreTrainedTokenizerBase

from sailvit.core.errors import DataError

_ASKED = "strftime_now"
"""The function that transformers offers to templates for the current date."""
_LITERAL = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
_CALL = re.compile(r"strftime_now\s*\(")
_DIRECTIVES = "aAbBcdeDFGgHhIjkmMlnpPrRsStTuUVwWxXyYzZ"
_FLAGS = ("", "-", "_", "0", "^", "#")
_MACRO = (
    "{%%- macro strftime_now(format) -%%}{%%- set made = namespace(text=format) -%%}"
    "{%%- for directive, value in %r -%%}{%%- set made.text = made.text|replace(directive, value) -%%}"
    "{%%- endfor -%%}{{ made.text }}{%%- endmacro -%%}"
    # So that nothing is dropped from what follows, as a newline behind a block would be.
    "{{ '' }}"
)


def template_source(tokenizer: PreTrainedTokenizerBase) -> str:
    """The source that a plain conversation is rendered with, as transformers chooses it; empty
    without a template.

    Of several named templates that is `default`. DataError when there is none of that name.
    """
    given = tokenizer.chat_template
    if not isinstance(given, dict):
        return given or ""
    if given and "default" not in given:
        raise DataError(
            f"the tokenizer has several chat templates ({', '.join(sorted(given))}) and none of them is called"
            " `default`, which plain conversations are written with; name one of them so",
            kind="template",
        )
    return str(given.get("default") or "")


def is_dated(source: str) -> bool:
    """Whether a template asks for the current date."""
    return _ASKED in source


def fix_date(source: str, day: date) -> str:
    """The source with the current date replaced by midnight of a given day.

    transformers turns functions among a template's variables into text, so the function becomes
    a macro of the source.
    """
    if not is_dated(source):
        return source
    moment = datetime.combine(day, time())
    values = [
        (f"%{flag}{letter}", moment.strftime(f"%{flag}{letter}"))
        for flag in _FLAGS
        for letter in _DIRECTIVES
    ]
    return _MACRO % ([*values, ("%%", "%")],) + source


def written_dates(source: str, day: date) -> list[str]:
    """What a template writes of the day; the whole day where the source does not show in what
    form.
    """
    literals = [found[2] for found in _LITERAL.finditer(source)]
    if len(literals) < len(_CALL.findall(source)) or not literals:
        return [day.isoformat()] if is_dated(source) else []
    return [datetime.combine(day, time()).strftime(form) for form in literals]
