"""The Jinja source of a tokenizer's chat template, as transformers renders it, but with a fixed
date.

A template may write today's date (`strftime_now`), so a run that is resumed or repeated on
another day would train on other texts. Here every rendering writes the same given date.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time

from transformers import PreTrainedTokenizerBase

from sailvit.core.errors import DataError

_ASKED = "strftime_now"
"""The function for the current date that transformers gives to templates."""
_LITERAL = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
_LOOKED_FOR = re.compile(
    r"""(?:startswith|endswith|split|replace)\(\s*(?P<a>['"])(?P<called>.*?)(?P=a)"""
    r"""|(?P<b>['"])(?P<tested>[^'"]*)(?P=b)\s+(?:not\s+)?in\s"""
)
_CALL = re.compile(r"strftime_now\s*\(")
_DIRECTIVES = "aAbBcdeDFGgHhIjkmMlnpPrRsStTuUVwWxXyYzZ"
_FLAGS = ("", "-", "_", "0", "^", "#")
_MACRO = (
    "{%%- macro strftime_now(format) -%%}{%%- set made = namespace(text=format) -%%}"
    "{%%- for directive, value in %r -%%}"
    "{%%- set made.text = made.text|replace(directive, value) -%%}"
    "{%%- endfor -%%}{{ made.text }}{%%- endmacro -%%}"
    # Jinja would drop a newline that follows a block; it keeps one that follows an expression.
    "{{ '' }}"
)


def template_source(tokenizer: PreTrainedTokenizerBase) -> str:
    """The source with which transformers renders a plain conversation; empty without a
    template.

    Of several named templates it is `default`; DataError when none has that name.
    """
    given = tokenizer.chat_template
    if not isinstance(given, dict):
        return given or ""
    if given and "default" not in given:
        raise DataError(
            f"the tokenizer has several chat templates ({', '.join(sorted(given))}) and none of"
            " them is called `default`, which plain conversations are written with; name one of"
            " them so",
            kind="template",
        )
    return str(given.get("default") or "")


def is_dated(source: str) -> bool:
    """Whether a template writes the current date."""
    return _ASKED in source


def fix_date(source: str, day: date) -> str:
    """The source with the current date replaced by midnight of a given day.

    The function becomes a macro in the source: transformers would turn a function among a
    template's variables into text.
    """
    if not is_dated(source):
        return source
    moment = datetime.combine(day, time())
    values = [
        (f"%{flag}{letter}", moment.strftime(f"%{flag}{letter}"))
        for flag in _FLAGS
        for letter in _DIRECTIVES
    ]
    # `%%` last: the `%` that it becomes must not begin another directive.
    return _MACRO % ([*values, ("%%", "%")],) + source


def written_dates(source: str, day: date) -> list[str]:
    """The dates that a template writes, in its formats; the ISO date where the source does not
    show the format.
    """
    literals = [found[2] for found in _LITERAL.finditer(source)]
    if len(literals) < len(_CALL.findall(source)) or not literals:
        return [day.isoformat()] if is_dated(source) else []
    return [datetime.combine(day, time()).strftime(form) for form in literals]


def looked_for(template: str) -> set[str]:
    """The strings that a template's source searches for in texts.

    Strings of word characters alone are left out, as they are names of fields.
    """
    found = (match["called"] or match["tested"] or "" for match in _LOOKED_FOR.finditer(template))
    controls = {text.replace(r"\n", "\n").strip() for text in found}
    return {control for control in controls if re.search(r"\W", control)}
