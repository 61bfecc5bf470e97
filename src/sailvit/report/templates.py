"""The pages' templates, which lie in this folder."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from sailvit.core import formatting

_FILTERS = (
    *("count", "counted", "short", "duration", "percent", "score"),
    *("points", "rate", "plain", "clipped"),
)
"""Of the formatters, by the names that the templates use."""


def template(name: str, styles: Sequence[str] = ("report.css",)) -> Template:
    """A template that knows the formatters, and the text of its style sheets as `css`."""
    # Model output, texts and names come from strangers' data: everything is escaped except our
    # own CSS and SVG.
    # Strict: a misspelt name is an error in the tests, not an empty place on the page.
    environment = Environment(
        loader=PackageLoader("sailvit", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({each: getattr(formatting, each) for each in _FILTERS})
    sheets = [
        files("sailvit.report").joinpath(sheet).read_text(encoding="utf-8") for sheet in styles
    ]
    return environment.get_template(name, globals={"css": Markup("\n".join(sheets))})
