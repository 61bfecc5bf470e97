"""The pages' templates, which lie in this folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from sailvit.report.wording import FILTERS


def template(
    name: str,
    styles: Sequence[str] = ("report.css",),
    filters: Mapping[str, Callable[..., Any]] = FILTERS,
) -> Template:
    """A template that knows the filters, and the text of its style sheets as `css`."""
    # Model output, texts and names come from strangers' data: everything is escaped except our
    # own CSS and SVG.
    environment = Environment(
        loader=PackageLoader("sailvit", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    sheets = [
        files("sailvit.report").joinpath(sheet).read_text(encoding="utf-8") for sheet in styles
    ]
    return environment.get_template(name, globals={"css": Markup("\n".join(sheets))})
